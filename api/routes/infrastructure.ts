/** `/v1/infrastructure-sweeps`: what this tenant has at a cloud that belongs to no cluster. */
import { parseSweepInput } from '../../src/domain/input.ts';
import { addRoute, type Api, type ApiDeps } from '../context.ts';
import { readBody } from '../request.ts';
import { SweepBody } from '../schemas.ts';
import { accepted, startOperation } from '../start-operation.ts';
import { body, problems, started, startHeaders } from './documentation.ts';

export function infrastructureRoutes(api: Api, deps: ApiDeps): void {
  addRoute(
    api,
    {
      method: 'post',
      path: '/v1/infrastructure-sweeps',
      tags: ['Infrastructure'],
      summary: 'List what carries our tags on AWS and belongs to no cluster; remove it when told by "dryRun": false',
      request: { headers: startHeaders, body: body(SweepBody) },
      responses: { ...started(), ...problems('InvalidInput', 'IdempotencyKeyReused') },
    },
    async (c) => {
      const tenant = c.get('tenant');
      const input = await readBody(c, { schema: SweepBody, fixed: { tenant }, parse: parseSweepInput });
      const { region, cluster, dryRun = true } = input;
      const what = `what belongs to no cluster of ${tenant} in ${region}`;
      const summary = dryRun ? `List ${what}` : `Remove ${what}`;
      const request = { kind: 'sweep' as const, cluster: cluster ?? '*', about: cluster ?? region, input, summary };
      return accepted(c, await startOperation(c, deps, request));
    },
  );
}
