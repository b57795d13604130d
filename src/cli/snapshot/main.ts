#!/usr/bin/env node
// fsfreeze-snapshot: the process around run.ts. Nothing ends it while something may be held: signals, and what nobody
// caught (a bug), let go first.
import { readFileSync } from 'node:fs';
import { tuneForOneCall } from '../../agent/v8-tuning.js';
import { printable } from '../../printable.js';
import { OUR_FAILURE, passesCodeOn } from './exit-codes.js';
import { runSnapshot } from './run.js';

tuneForOneCall();
const controller = new AbortController();
const uncaught: unknown[] = [];
const listeners = new Set<(signal: NodeJS.Signals) => void>();

/** What a terminal sends to all of its foreground, the command included. */
const ofTerminal: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT'];
const IS_ON_TERMINAL = hasTerminal();

for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    controller.abort(name);
    pass(name);
  });
}
for (const name of ['SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const) {
  process.on(name, () => {
    pass(name);
  });
}
process.on('uncaughtException', (error) => {
  uncaught.push(error);
  controller.abort('an internal error');
  pass('SIGTERM');
});
// A closed terminal or pipe must not end it while something is held.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

function pass(signal: NodeJS.Signals): void {
  if (IS_ON_TERMINAL && ofTerminal.includes(signal)) return;
  for (const act of listeners) act(signal);
}

function hasTerminal(): boolean {
  const fields = readFileSync('/proc/self/stat', 'latin1').split(') ').at(-1)?.split(' ');
  return Number(fields?.[4]) !== 0;
}

const streams = {
  stdout: (text: string) => process.stdout.write(text),
  stderr: (text: string) => process.stderr.write(text),
  inputEnd: async () => {
    process.stdin.resume();
    await new Promise((resolve) => {
      for (const event of ['end', 'close', 'error']) process.stdin.once(event, resolve);
    });
  },
};

const signals = {
  abort: controller.signal,
  forward: (act: (signal: NodeJS.Signals) => void) => {
    listeners.add(act);
    return () => {
      listeners.delete(act);
    };
  },
};

/** Of exec and hold any other code than 125 is the command's. */
const BUG = passesCodeOn(process.argv.slice(2)) ? OUR_FAILURE : 70;
// Until it has answered: a command that waits for nothing any more is a bug, too.
process.exitCode = BUG;
// No `await` outside a function: the bundle is CommonJS.
void runSnapshot(process.argv.slice(2), streams, signals).then((code) => {
  for (const error of uncaught) {
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    process.stderr.write(`fsfreeze-snapshot: internal error: ${printable(what)}\n`);
  }
  process.exitCode = uncaught.length > 0 && code !== 6 ? BUG : code;
  // What was read of standard input keeps nothing waiting any more.
  process.stdin.destroy();
});
