// A requester inside the guest, as a process of its own that a test can kill: it sends what it is told to a socket of
// the agent's, and gives the lines that come back.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

const program = `
const socket = require('node:net').createConnection(process.argv[1]);
socket.on('error', () => process.exit(1));
socket.on('close', () => process.exit(2));
socket.pipe(process.stdout);
process.stdin.pipe(socket);
`;

export interface InsideRequester extends Disposable {
  readonly process: ChildProcess;
  send(text: string): void;
  request(execute: string, args: object): void;
  /** What the next reply returns. Throws its error's desc. */
  reply(): Promise<unknown>;
  /** SIGKILL; settles when it is gone. */
  kill(): Promise<void>;
}

export function insideRequester(socket: string): InsideRequester {
  const child = spawn(process.execPath, ['-e', program, socket], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.on('error', () => undefined);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const send = (text: string): void => void child.stdin.write(text);
  return {
    process: child,
    send,
    request(execute, args) {
      send(`${JSON.stringify({ execute, arguments: args })}\n`);
    },
    async reply() {
      const line = await lines.next();
      if (line.done === true) throw new Error('expected a reply, found the connection closed');
      const { error, return: result } = JSON.parse(line.value) as { error?: { desc: string }; return?: unknown };
      if (error !== undefined) throw new Error(error.desc);
      return result;
    },
    async kill() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
    },
    [Symbol.dispose]: () => void child.kill('SIGKILL'),
  };
}
