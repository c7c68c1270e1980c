import { HttpMethod, KubernetesObjectApi, PatchStrategy } from '@kubernetes/client-node';
import type { AppliedObject } from '../domain/kubernetes-objects.ts';

/**
 * Server-side apply of objects as they are. The library's own `patch` passes an object of a kind that it knows through
 * a model whose fields have other names where JavaScript reserves one: it drops the `from` of a NetworkPolicy, and a
 * rule without `from` lets everybody in.
 */
export class ServerSideApply extends KubernetesObjectApi {
  /** Made or brought up to date, and fields of other managers are left alone. */
  async apply(object: AppliedObject, fieldManager: string): Promise<void> {
    const { metadata, ...rest } = object;
    const path = await this.specUriPath(
      { ...rest, metadata: { ...metadata, labels: { ...metadata.labels } } },
      'patch',
    );
    const request = this.configuration.baseServer.makeRequestContext(path, HttpMethod.PATCH);
    request.setHeaderParam('Accept', 'application/json');
    request.setHeaderParam('Content-Type', PatchStrategy.ServerSideApply);
    request.setQueryParam('fieldManager', fieldManager);
    request.setQueryParam('force', 'true');
    // JSON is YAML, which is what a server-side apply sends.
    request.setBody(JSON.stringify(object));
    await this.requestPromise(request);
  }
}
