/** `/v1/quotas`: what the tenant may have, and what it has. */
import { addRoute, type Api, type ApiDeps } from '../context.ts';
import type { LongPolls } from '../long-polls.ts';
import { viewQuotas } from '../quota.ts';
import { QuotaList } from '../schemas.ts';
import { json, problems } from './documentation.ts';

export function quotaRoutes(api: Api, deps: ApiDeps, longPolls: LongPolls): void {
  addRoute(
    api,
    {
      method: 'get',
      path: '/v1/quotas',
      tags: ['Quotas'],
      summary: 'What you may have, and what you have',
      responses: { 200: json(QuotaList, 'All quotas'), ...problems() },
    },
    async (c) => {
      const tenant = c.get('tenant');
      return c.json({ items: await viewQuotas(deps, tenant, longPolls.of(tenant)) });
    },
  );
}
