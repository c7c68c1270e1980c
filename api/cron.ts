/** When a schedule fires: the part of the cron dialects that Temporal and everybody else read alike. */
import { Cron } from 'croner';
import { messageOf } from '../src/domain/errors.ts';

const NICKNAMES = ['@hourly', '@daily', '@weekly', '@monthly', '@yearly'];
// No `#`, `L`, `W` and `?`: Temporal takes what follows `#` for a comment and does not know the others.
const FIELD = /^(?:[\d*,/-]|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC|SUN|MON|TUE|WED|THU|FRI|SAT)+$/i;

/**
 * Why `text` is no cron expression that we take, if it is none. Five fields only: a sixth is the year for Temporal and
 * the seconds for others. Where both days are given Temporal asks for both (hence `domAndDow`), and classic cron for
 * either; the API's documentation says so.
 */
export function cronProblem(text: string): string | undefined {
  if (text.startsWith('@')) {
    return NICKNAMES.includes(text) ? undefined : `must be one of ${NICKNAMES.join(', ')}, or five fields`;
  }
  const fields = text.split(' ');
  if (fields.length !== 5) {
    return 'must have five fields with one space between: minute hour day-of-month month day-of-week, as in "0 3 * * *"';
  }
  const bad = fields.find((field) => !FIELD.test(field));
  if (bad !== undefined) return `has "${bad}"; a field is made of numbers, names, "*", ",", "-" and "/"`;
  try {
    const next = new Cron(text, { domAndDow: true, timezone: 'UTC' }).nextRun();
    return next === null ? 'never fires' : undefined;
  } catch (error) {
    return `is not valid: ${messageOf(error)}`;
  }
}

/** Why `text` is no IANA time zone, if it is none. */
export function timeZoneProblem(text: string): string | undefined {
  const remedy = 'must be an IANA time zone such as "UTC" or "Europe/Berlin"';
  // Intl also takes offsets such as "+01:00", which are no zones for Temporal.
  if (!/^[A-Za-z][\w+/-]*$/.test(text)) return remedy;
  try {
    const { timeZone } = new Intl.DateTimeFormat('en', { timeZone: text }).resolvedOptions();
    const otherCase = timeZone !== text && timeZone.toLowerCase() === text.toLowerCase();
    return otherCase ? `must be written "${timeZone}"` : undefined;
  } catch (error) {
    if (error instanceof RangeError) return remedy;
    throw error;
  }
}
