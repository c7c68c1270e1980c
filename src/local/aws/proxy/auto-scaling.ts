/** As much of EC2 Auto Scaling as a node group's machines need: which of them may be taken, and whether zones are evened out. */
import { randomUUID } from 'node:crypto';
import { errorAnswer } from './answers.ts';
import type { Answer, AwsCall, Layer } from './call.ts';

/** Neither emulator makes an Auto Scaling group for a node group, so all of it is answered here. */
export class AutoScalingLayer implements Layer {
  readonly #protected = new Set<string>();
  readonly #knows: (call: AwsCall, group: string) => Promise<boolean>;

  /** @param knows whether a node group has the Auto Scaling group of this name */
  constructor(knows: (call: AwsCall, group: string) => Promise<boolean>) {
    this.#knows = knows;
  }

  clear(): void {
    this.#protected.clear();
  }

  /** Whether a scale-in must leave an instance alone. */
  isProtected(instance: string): boolean {
    return this.#protected.has(instance);
  }

  async handle(call: AwsCall, next: () => Promise<Answer>): Promise<Answer> {
    if (call.service !== 'autoscaling') return next();
    const { AutoScalingGroupName: group, ProtectedFromScaleIn: wanted } = call.params;
    if (!(await this.#knows(call, String(group)))) {
      return errorAnswer(call, 400, 'ValidationError', `AutoScalingGroup name not found - ${String(group)}`);
    }
    if (call.operation === 'SetInstanceProtection') {
      for (const [name, instance] of Object.entries(call.params)) {
        if (!name.startsWith('InstanceIds.member.')) continue;
        if (wanted === 'true') this.#protected.add(String(instance));
        else this.#protected.delete(String(instance));
      }
      return done(call.operation, '<SetInstanceProtectionResult/>');
    }
    // Zones are never evened out here.
    if (call.operation === 'SuspendProcesses') return done(call.operation, '');
    return next();
  }
}

function done(operation: string, result: string): Answer {
  const body =
    `<${operation}Response xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/">${result}` +
    `<ResponseMetadata><RequestId>${randomUUID()}</RequestId></ResponseMetadata></${operation}Response>`;
  return { status: 200, headers: { 'content-type': 'text/xml' }, body };
}
