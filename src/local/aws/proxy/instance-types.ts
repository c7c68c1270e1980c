/** Instance types for an emulator that knows none: those that a Qdrant cluster is likely to ask for. */
import type { AwsCall } from './call.ts';

const TYPES = [
  't3.medium',
  't3.large',
  't3.xlarge',
  'm6i.large',
  'm6i.xlarge',
  'm6i.2xlarge',
  'm7g.large',
  'm7g.xlarge',
  'm7i.large',
  'm7i.xlarge',
  'r6i.large',
  'r6i.xlarge',
  'r6i.2xlarge',
  'r7g.large',
  'r7g.xlarge',
  'r7i.large',
  'r7i.xlarge',
];

/** The content of DescribeInstanceTypeOfferings, filtered by `instance-type`; by zone or by region as it is asked for. */
export function instanceTypeOfferings({ params, region }: AwsCall): string {
  const asked = filterValues(params, 'instance-type');
  const location = typeof params['LocationType'] === 'string' ? params['LocationType'] : 'region';
  const places = location === 'availability-zone' ? ['a', 'b', 'c'].map((zone) => region + zone) : [region];
  const wanted = filterValues(params, 'location');
  const items = TYPES.filter((type) => asked?.some((pattern) => fits(pattern, type)) ?? true).flatMap((type) =>
    places
      .filter((place) => wanted?.includes(place) ?? true)
      .map(
        (place) =>
          `<item><instanceType>${type}</instanceType><locationType>${location}</locationType><location>${place}</location></item>`,
      ),
  );
  return `<instanceTypeOfferingSet>${items.join('')}</instanceTypeOfferingSet>`;
}

function filterValues(params: AwsCall['params'], name: string): string[] | undefined {
  const [, number] = /^Filter\.(\d+)\.Name$/.exec(Object.keys(params).find((key) => params[key] === name) ?? '') ?? [];
  if (number === undefined) return undefined;
  return Object.entries(params).flatMap(([key, value]) =>
    key.startsWith(`Filter.${number}.Value.`) ? [String(value)] : [],
  );
}

function fits(pattern: string, type: string): boolean {
  return new RegExp(`^${pattern.replaceAll('.', '\\.').replaceAll('*', '.*')}$`).test(type);
}
