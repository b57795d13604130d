#!/usr/bin/env node
// fsfreeze-bridge: the process around program.ts. SIGINT, SIGTERM and SIGHUP interrupt the command, which thaws the
// guest before it goes; none of them ends the process by itself, however often it comes. Nor does a bug: what nobody
// caught interrupts the command, too, and is told of when the guest is thawed.
import { exitCode } from './exit-codes.js';
import { printable } from './printable.js';
import { runBridge } from './program.js';

const controller = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    controller.abort(name);
  });
}

const uncaught: unknown[] = [];
process.on('uncaughtException', (error) => {
  uncaught.push(error);
  controller.abort('an internal error');
});

// A closed terminal or pipe must not end the tool while the guest is held.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

const code = await runBridge(
  process.argv.slice(2),
  {
    stdout: (text) => process.stdout.write(text),
    stderr: (text) => process.stderr.write(text),
  },
  controller.signal,
);
for (const error of uncaught) {
  const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(`fsfreeze-bridge: internal error: ${printable(what)}\n`);
}
process.exitCode = uncaught.length > 0 && code !== exitCode('thaw-unconfirmed') ? exitCode('internal') : code;
// A command that only reads is left where it was; everything else is over by now.
if (controller.signal.aborted) process.exit();
