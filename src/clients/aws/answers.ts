/** Refusals of AWS that are no failures where they are expected. */
import { FleetError } from '../../domain/errors.ts';
import { isExisting, isNotFound } from './errors.ts';

/** What a call answers; `undefined` where the thing that it is about is not there. */
export async function ifThere<T>(send: () => Promise<T>): Promise<T | undefined> {
  try {
    return await send();
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

/** Send a call that makes what may be there already. */
export async function unlessThere(send: () => Promise<unknown>): Promise<void> {
  try {
    await send();
  } catch (error) {
    if (!isExisting(error)) throw error;
  }
}

/**
 * A service may not know yet what it, or another, has just made. That is no reason to make it again.
 *
 * @param service of AWS @param what in words
 * @throws FleetError `InfrastructureNotReady` until then
 */
export async function onceSeen<T>(service: string, what: string, send: () => Promise<T>): Promise<T> {
  try {
    return await send();
  } catch (error) {
    if (!isNotFound(error)) throw error;
    throw new FleetError('InfrastructureNotReady', `${service} does not know ${what} yet.`, { cause: error });
  }
}
