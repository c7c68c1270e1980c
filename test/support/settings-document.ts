/** docs/qdrant-settings.md, made of the table that the guards go by: `node test/support/settings-document.ts > docs/qdrant-settings.md`. */
import { KEPT_OUT, QDRANT_SETTINGS, type SettingType } from '../../src/domain/qdrant-settings.ts';

function valuesOf(setting: SettingType): string {
  if (setting.kind === 'boolean') return 'true, false';
  if (setting.kind === 'enum') return setting.values.map((value) => `\`${value}\``).join(', ');
  const { min, max } = setting;
  return `${setting.kind === 'integer' ? 'whole number' : 'number'}, ${min} to ${max}`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]) => `| ${cells.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(' | ')} |`;
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n');
}

export function settingsDocument(): string {
  const settings = Object.entries(QDRANT_SETTINGS).map(([name, setting]) => [
    `\`${name}\``,
    valuesOf(setting),
    setting.since ?? '',
  ]);
  const kept = KEPT_OUT.map(([name, reason]) => [`\`${name}\``, `It ${reason}.`]);
  return `# Settings of Qdrant

\`config\` of a cluster takes these settings of Qdrant's configuration file by their dotted names, for example
\`"config": {"service.jwt_rbac": true}\`. A name that is not listed, a value of another type or out of range, and a setting
that the cluster's version does not know yet are refused. \`PATCH\` with \`config\` replaces all settings and restarts the
pods one after the other. What a setting does is told in Qdrant's own
[configuration reference](https://qdrant.tech/documentation/guides/configuration/).

\`src/domain/qdrant-settings.ts\` is where this list comes from, and a test keeps the two equal.

${table(['Setting', 'Values', 'Since'], settings)}

## Kept out

A name stands for itself and for everything below it.

${table(['Setting', 'Why'], kept)}
`;
}

if (import.meta.main) process.stdout.write(settingsDocument());
