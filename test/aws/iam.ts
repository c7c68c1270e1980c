/** As much of IAM's evaluation of a policy as the worker's policy needs. */
import type { PolicyDocument, Statement } from '../../src/domain/aws-policies.ts';

/** One question that AWS asks about a call: may this be done to this, given these condition keys? */
export interface Access {
  readonly action: string;
  /** ARN, or `*` where the action knows no resources. */
  readonly resource: string;
  readonly context: Readonly<Record<string, string>>;
}

/**
 * Whether a policy allows it: some statement does, and none denies it.
 *
 * @throws Error for an operator that is not known here, rather than to take it for met
 */
export function isAllowed({ Statement: statements }: PolicyDocument, access: Access): boolean {
  const effects = statements.filter((statement) => applies(statement, access)).map(({ Effect }) => Effect);
  return effects.includes('Allow') && !effects.includes('Deny');
}

function applies({ Action, Resource, Condition = {} }: Statement, { action, resource, context }: Access): boolean {
  if (!list(Action).some((pattern) => like(pattern.toLowerCase(), action.toLowerCase()))) return false;
  if (!list(Resource ?? []).some((pattern) => like(pattern, resource))) return false;
  return Object.entries(Condition).every(([operator, keys]) =>
    Object.entries(keys).every(([key, values]) => isMet(operator, context[key], list(values))),
  );
}

/** A key that the call does not carry meets nothing, except that it is absent. */
function isMet(operator: string, found: string | undefined, values: readonly string[]): boolean {
  switch (operator) {
    case 'StringEquals':
      return found !== undefined && values.includes(found);
    case 'StringLike':
    case 'ArnLike':
    case 'ArnEquals':
      return found !== undefined && values.some((pattern) => like(pattern, found));
    case 'Bool':
      return found !== undefined && values.includes(found);
    case 'Null':
      return values.includes(String(found === undefined));
    default:
      throw new Error(`The operator ${operator} is not known here.`);
  }
}

/** `*` stands for any text, `?` for one character. */
function like(pattern: string, text: string): boolean {
  const escaped = pattern.replaceAll(/[.+^${}()|[\]\\]/g, String.raw`\$&`);
  return new RegExp(`^${escaped.replaceAll('*', '.*').replaceAll('?', '.')}$`).test(text);
}

function list(value: string | readonly string[]): readonly string[] {
  return [value].flat();
}
