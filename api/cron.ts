/** When a schedule fires: the part of the cron dialects that Temporal and everybody else read alike. */
import { Cron } from 'croner';
import { messageOf } from '../src/domain/errors.ts';
import { shown } from '../src/domain/input/echo.ts';
import { TEXTS } from '../src/domain/input/limits.ts';
import type { Problem } from '../src/domain/input/problems.ts';

const NICKNAMES = ['@hourly', '@daily', '@weekly', '@monthly', '@yearly'];
// No `#`, `L`, `W` and `?`: Temporal takes what follows `#` for a comment and does not know the others.
const NAMES = 'JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC|SUN|MON|TUE|WED|THU|FRI|SAT';
const EITHER_CASE = NAMES.replaceAll(/[A-Z]/g, (letter) => `[${letter}${letter.toLowerCase()}]`);
const FIELD = `(?:[0-9*,/-]|${EITHER_CASE})+`;
const FIELD_PATTERN = new RegExp(`^${FIELD}$`);

/** What the document says of a cron expression; whether it ever fires, a pattern cannot say. */
export const CRON_PATTERN = new RegExp(`^(?:${NICKNAMES.join('|')}|${FIELD}(?: ${FIELD}){4})$`);

/** What the document says of a time zone; whether there is such a zone, a pattern cannot say. */
export const TIME_ZONE_PATTERN = /^[A-Za-z][A-Za-z0-9_+/-]*$/;

/**
 * Why `text` is no cron expression that we take, if it is none. Five fields only: a sixth is the year for Temporal and
 * the seconds for others. Where both days are given Temporal asks for both (hence `domAndDow`), and classic cron for
 * either; the API's documentation says so.
 */
export function cronProblem(text: string): Problem | undefined {
  if (text.length > TEXTS.cron) return `must have at most ${TEXTS.cron} characters`;
  if (text.startsWith('@')) {
    return NICKNAMES.includes(text) ? undefined : `must be one of ${NICKNAMES.join(', ')}, or five fields`;
  }
  const fields = text.split(' ');
  if (fields.length !== 5) {
    return 'must have five fields with one space between: minute hour day-of-month month day-of-week, as in "0 3 * * *"';
  }
  if (!CRON_PATTERN.test(text)) {
    const bad = fields.find((field) => !FIELD_PATTERN.test(field)) ?? '';
    return `has "${shown(bad, 20)}"; a field is made of numbers, names, "*", ",", "-" and "/"`;
  }
  try {
    const next = new Cron(text, { domAndDow: true, timezone: 'UTC' }).nextRun();
    return next === null ? { conflict: 'never fires' } : undefined;
  } catch (error) {
    return { conflict: `is not valid: ${messageOf(error)}` };
  }
}

/** Why `text` is no IANA time zone, if it is none. */
export function timeZoneProblem(text: string): Problem | undefined {
  if (text.length > TEXTS.timeZone) return `must have at most ${TEXTS.timeZone} characters`;
  const remedy = 'must be an IANA time zone such as "UTC" or "Europe/Berlin"';
  // Intl also takes offsets such as "+01:00", which are no zones for Temporal.
  if (!TIME_ZONE_PATTERN.test(text)) return remedy;
  try {
    const { timeZone } = new Intl.DateTimeFormat('en', { timeZone: text }).resolvedOptions();
    const otherCase = timeZone !== text && timeZone.toLowerCase() === text.toLowerCase();
    return otherCase ? { conflict: `must be written "${timeZone}"` } : undefined;
  } catch (error) {
    if (error instanceof RangeError) return { conflict: remedy };
    throw error;
  }
}
