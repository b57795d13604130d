#!/usr/bin/env node
// fsfreeze-bridge: the process around program.ts. Nothing ends it while a guest may be held. Signals interrupt the command
// (signals.ts). An error that nobody caught, a bug, does the same, and is told of when the guest is thawed.
import { interrupt, interrupted } from './signals.js';
import { exitCode } from './exit-codes.js';
import { printable } from '../../printable.js';
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

// The code until the command has answered: a process that ends before, since nothing is left to wait for, is a bug.
process.exitCode = exitCode('internal');
// No `await` outside a function: the bundle is CommonJS.
void runBridge(process.argv.slice(2), streams, interrupted).then((code) => {
  for (const error of uncaught) {
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    process.stderr.write(`fsfreeze-bridge: internal error: ${printable(what)}\n`);
  }
  process.exitCode = uncaught.length > 0 && code !== exitCode('thaw-unconfirmed') ? exitCode('internal') : code;
  // A command that only reads may still be under way, and is left where it is. Every other one is over by now.
  if (interrupted.aborted) process.exit();
});
