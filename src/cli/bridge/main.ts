#!/usr/bin/env node
// fsfreeze-bridge: the process around program.ts. Nothing ends it while a guest may be held: signals.ts has the signals,
// and what nobody caught, a bug, interrupts the command as they do, and is told of when the guest is thawed.
import { interrupt, interrupted } from './signals.js';
import { exitCode } from './exit-codes.js';
import { printable } from './printable.js';
import { runBridge } from './program.js';

const uncaught: unknown[] = [];
process.on('uncaughtException', (error) => {
  uncaught.push(error);
  interrupt('an internal error');
});

// A closed terminal or pipe must not end the tool while the guest is held.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

const streams = {
  stdout: (text: string) => process.stdout.write(text),
  stderr: (text: string) => process.stderr.write(text),
};

// Until it has answered: a command that waits for nothing any more is a bug, too.
process.exitCode = exitCode('internal');
// No `await` outside a function: the bundle is CommonJS.
void runBridge(process.argv.slice(2), streams, interrupted).then((code) => {
  for (const error of uncaught) {
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    process.stderr.write(`fsfreeze-bridge: internal error: ${printable(what)}\n`);
  }
  process.exitCode = uncaught.length > 0 && code !== exitCode('thaw-unconfirmed') ? exitCode('internal') : code;
  // A command that only reads is left where it was; everything else is over by now.
  if (interrupted.aborted) process.exit();
});
