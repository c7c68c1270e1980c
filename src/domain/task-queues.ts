/** The task queues of a fleet, by the name of the one for control work. */

/** For activities that only wait, for hours at times, for what a Qdrant node does. */
export function waitingQueue(control: string): string {
  return `${control}-waits`;
}
