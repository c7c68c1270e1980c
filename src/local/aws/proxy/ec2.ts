/** EC2 beyond the emulators: NAT gateways take their time, and what still needs something keeps it from going. */
import { ec2Answer, errorAnswer, errorCodeOf } from './answers.ts';
import type { Answer, AwsCall, Layer } from './call.ts';
import { instanceTypeOfferings } from './instance-types.ts';
import type { Course, Pace } from './pace.ts';
import { createdId } from './resources.ts';
import type { Upstream } from './upstream.ts';
import { childText, elements, parseXml, setChildText, writeXml, type Element } from './xml.ts';

interface Nat extends Course {
  readonly subnet: string;
  readonly address: string;
  phase: 'create' | 'delete' | 'none';
  left: number;
}

export class Ec2Layer implements Layer {
  readonly #upstream: Upstream;
  readonly #pace: Pace;
  readonly #nats = new Map<string, Nat>();

  constructor(upstream: Upstream, pace: Pace) {
    this.#upstream = upstream;
    this.#pace = pace;
  }

  clear(): void {
    this.#nats.clear();
  }

  async handle(call: AwsCall, next: () => Promise<Answer>): Promise<Answer> {
    if (call.service !== 'ec2') return next();
    switch (call.operation) {
      case 'CreateNatGateway':
        return this.#createNat(call, await next());
      case 'DescribeNatGateways':
        return this.#describeNats(await next());
      case 'DeleteNatGateway':
        return this.#deleteNat(call, next);
      case 'DeleteSubnet':
        return (
          this.#blocked(call, ({ subnet }) => subnet === call.params['SubnetId']) ??
          (await this.#inhabited(call, 'subnet-id', String(call.params['SubnetId']))) ??
          next()
        );
      case 'DeleteVpc':
        return (await this.#inhabited(call, 'vpc-id', String(call.params['VpcId']))) ?? next();
      case 'ReleaseAddress':
        return this.#blocked(call, ({ address }) => address === call.params['AllocationId']) ?? next();
      case 'DescribeInstanceTypeOfferings': {
        const answer = await next();
        const unknown =
          answer.status >= 400 && /InvalidAction|Unsupported|NotImplemented/.test(errorCodeOf(answer) ?? '');
        return unknown ? ec2Answer(call.operation, instanceTypeOfferings(call)) : answer;
      }
      default:
        return next();
    }
  }

  #createNat(call: AwsCall, answer: Answer): Answer {
    const id = createdId(call, answer);
    if (id === undefined) return answer;
    const course = this.#pace.next('nat-gateway', 'create', id);
    const [subnet, address] = [String(call.params['SubnetId']), String(call.params['AllocationId'])];
    this.#nats.set(id, { ...course, subnet, address, phase: 'create', left: course.describes });
    return this.#shown(answer);
  }

  #describeNats(answer: Answer): Answer {
    if (answer.status >= 300) return answer;
    const shown = this.#shown(answer);
    for (const id of idsIn(answer)) {
      const nat = this.#nats.get(id);
      if (nat === undefined || nat.phase === 'none') continue;
      nat.left = Math.max(0, nat.left - 1);
      if (nat.left > 0 || nat.fails !== undefined) continue;
      if (nat.phase === 'delete') this.#nats.delete(id);
      else nat.phase = 'none';
    }
    return shown;
  }

  async #deleteNat(call: AwsCall, next: () => Promise<Answer>): Promise<Answer> {
    const answer = await next();
    const id = String(call.params['NatGatewayId']);
    const nat = this.#nats.get(id);
    if (answer.status >= 300 || nat === undefined) return answer;
    await this.#removeInterface(call, nat.address);
    const course = this.#pace.next('nat-gateway', 'delete', id);
    if (course.describes === 0) this.#nats.delete(id);
    else
      this.#nats.set(id, {
        subnet: nat.subnet,
        address: nat.address,
        ...course,
        phase: 'delete',
        left: course.describes,
      });
    return answer;
  }

  /** On AWS the network interface goes with its gateway, and lets go of the address; moto leaves it where it is. */
  async #removeInterface(call: AwsCall, address: string): Promise<void> {
    const described = await this.#upstream.ec2(call, { Action: 'DescribeAddresses', 'AllocationId.1': address });
    const [item] = described.status === 200 ? elements(parseXml(described.body), 'item') : [];
    const interfaceId = item && childText(item, 'networkInterfaceId');
    if (item === undefined || interfaceId === undefined || interfaceId === '') return;
    const associationId = childText(item, 'associationId') ?? '';
    await this.#upstream.ec2(call, { Action: 'DisassociateAddress', AssociationId: associationId });
    await this.#upstream.ec2(call, { Action: 'DeleteNetworkInterface', NetworkInterfaceId: interfaceId });
  }

  /** As AWS refuses what a NAT gateway still uses, until that is gone for its caller too. */
  #blocked(call: AwsCall, uses: (nat: Nat) => boolean): Promise<Answer> | undefined {
    const found = [...this.#nats.values()].some(
      (nat) => uses(nat) && !(nat.phase === 'create' && nat.fails && !nat.left),
    );
    if (!found) return undefined;
    const answer =
      call.operation === 'DeleteSubnet'
        ? errorAnswer(
            call,
            400,
            'DependencyViolation',
            `The subnet '${String(call.params['SubnetId'])}' has dependencies and cannot be deleted.`,
          )
        : errorAnswer(
            call,
            400,
            'InvalidIPAddress.InUse',
            `The address with allocation id [${String(call.params['AllocationId'])}] cannot be released because it is in use.`,
          );
    return Promise.resolve(answer);
  }

  /** As AWS refuses to delete what network interfaces live in, whoever they belong to. */
  async #inhabited(call: AwsCall, filter: string, id: string): Promise<Answer | undefined> {
    const named = { Action: 'DescribeNetworkInterfaces', 'Filter.1.Name': filter, 'Filter.1.Value.1': id };
    const { status, body } = await this.#upstream.ec2(call, named);
    if (status >= 300 || !body.includes(`>${id}<`)) return undefined;
    const [what] = filter.split('-');
    const message = `The ${what} '${id}' has dependencies and cannot be deleted.`;
    return errorAnswer(call, 400, 'DependencyViolation', message);
  }

  /** The states that the caller is to see. */
  #shown(answer: Answer): Answer {
    const root = parseXml(answer.body);
    for (const gateway of gatewaysIn(root)) {
      const nat = this.#nats.get(childText(gateway, 'natGatewayId') ?? '');
      if (nat === undefined || nat.phase === 'none') continue;
      const [issue] = nat.fails ?? [];
      if (nat.left > 0) {
        setChildText(gateway, 'state', nat.phase === 'create' ? 'pending' : 'deleting');
      } else if (issue !== undefined) {
        setChildText(gateway, 'state', 'failed');
        setChildText(gateway, 'failureCode', issue.code);
        setChildText(gateway, 'failureMessage', issue.message);
      }
    }
    return { ...answer, body: writeXml(root) };
  }
}

function gatewaysIn(root: Element): Element[] {
  const all = [...elements(root, 'item'), ...elements(root, 'natGateway')];
  return all.filter((element) => childText(element, 'natGatewayId') !== undefined);
}

function idsIn(answer: Answer): string[] {
  return gatewaysIn(parseXml(answer.body)).map((gateway) => childText(gateway, 'natGatewayId') ?? '');
}
