/** Long files first, so that none of them runs alone in the end. A clean checkout knows no durations. */
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Folders by how long their files take. */
const LONG = ['/test/e2e/', '/test/faults/campaign', '/test/providers/', '/test/workflows/', '/test/aws/'];

export default class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    return sorted.toSorted((a, b) => rank(a) - rank(b));
  }
}

function rank({ moduleId }: TestSpecification): number {
  const found = LONG.findIndex((folder) => moduleId.includes(folder));
  return found === -1 ? LONG.length : found;
}
