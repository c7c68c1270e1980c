/** `/openapi.json` and `/docs`: Swagger UI from the files of its package, so that it works without the internet. */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { z } from '@hono/zod-openapi';
import { addRoute, type Api, type ApiDeps } from '../context.ts';
import { problem } from '../problem.ts';

const require = createRequire(import.meta.url);

const FILES: Readonly<Record<string, { path: string; type: string }>> = {
  'swagger-ui.css': { path: require.resolve('swagger-ui-dist/swagger-ui.css'), type: 'text/css' },
  'swagger-ui-bundle.js': { path: require.resolve('swagger-ui-dist/swagger-ui-bundle.js'), type: 'text/javascript' },
};

const PAGE = `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <title>qdrant-fleet API</title>
    <link rel="stylesheet" href="/docs/swagger-ui.css" />
    <link rel="icon" href="data:," />
  </head>
  <body>
    <div id="ui"></div>
    <script src="/docs/swagger-ui-bundle.js"></script>
    <script src="/docs/start.js"></script>
  </body>
</html>
`;

// The validator badge would call a public server.
const START = `SwaggerUIBundle({ url: '/openapi.json', dom_id: '#ui', deepLinking: true, validatorUrl: null });\n`;

/** Everything comes from this server, and nothing may be asked of another. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'";

export function docsRoutes(api: Api, { version }: ApiDeps): void {
  let document: string | undefined;
  const files = new Map<string, Promise<Buffer>>();
  addRoute(
    api,
    {
      method: 'get',
      path: '/openapi.json',
      tags: ['Documentation'],
      summary: 'This document',
      security: [],
      responses: {
        200: {
          description: 'OpenAPI 3.1',
          content: { 'application/json': { schema: z.record(z.string(), z.unknown()) } },
        },
      },
    },
    // Made once: anybody may ask, as often as they like.
    (c) => c.body((document ??= JSON.stringify(documentOf(api, version))), 200, { 'Content-Type': 'application/json' }),
  );
  addRoute(
    api,
    {
      method: 'get',
      path: '/docs',
      tags: ['Documentation'],
      summary: 'This document for people',
      security: [],
      responses: { 200: { description: 'A page', content: { 'text/html': { schema: z.string() } } } },
    },
    (c) => c.html(PAGE, 200, { 'Content-Security-Policy': POLICY }),
  );
  api.get('/docs/start.js', (c) => c.body(START, 200, { 'Content-Type': 'text/javascript; charset=utf-8' }));
  api.get('/docs/:file', async (c) => {
    const name = c.req.param('file');
    const file = Object.hasOwn(FILES, name) ? FILES[name] : undefined;
    if (file === undefined) return problem(c, 'NotFound', `There is no ${c.req.path}.`);
    const headers = { 'Content-Type': `${file.type}; charset=utf-8`, 'Cache-Control': 'public, max-age=86400' };
    let content = files.get(name);
    if (content === undefined) files.set(name, (content = readFile(file.path)));
    return c.body(new Uint8Array(await content), 200, headers);
  });
}

function documentOf(api: Api, version: string) {
  return api.getOpenAPI31Document({
    openapi: '3.1.0',
    info: {
      title: 'qdrant-fleet',
      version,
      description:
        'Qdrant clusters as durable operations. A request that changes something answers 202 with an operation; follow its Location.',
      license: { name: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    security: [{ token: [] }],
  });
}
