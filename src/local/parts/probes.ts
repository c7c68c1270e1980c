import { request } from 'node:http';
import { connect } from 'node:net';

/** Whether something accepts connections there. */
export function accepts(target: { port: number } | { path: string }): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect('port' in target ? { ...target, host: '127.0.0.1' } : target);
    const done = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(1000, () => done(false));
    socket.once('connect', () => done(true));
    socket.once('error', () => done(false));
  });
}

/** Whether `GET url` answers 200. */
export function answersOk(url: string): Promise<boolean> {
  return new Promise((resolve) => {
    const outgoing = request(url, { timeout: 2000, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    outgoing.once('timeout', () => outgoing.destroy());
    outgoing.once('error', () => resolve(false));
    outgoing.end();
  });
}
