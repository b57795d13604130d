#!/usr/bin/env node
// fsfreeze-bridge: the process around program.ts. SIGINT, SIGTERM and SIGHUP interrupt the command, which thaws the
// guest before it goes; none of them ends the process by itself.
import { runBridge } from './program.js';

const controller = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    controller.abort(name);
  });
}

// A closed terminal or pipe must not end the tool while the guest is held.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

process.exitCode = await runBridge(
  process.argv.slice(2),
  {
    stdout: (text) => process.stdout.write(text),
    stderr: (text) => process.stderr.write(text),
  },
  controller.signal,
);
