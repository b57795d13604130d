// SIGINT, SIGTERM and SIGHUP interrupt the command, which thaws the guest before it goes; none of them ends the process
// by itself, however often it comes. main.ts imports this before anything else, so that they are taken from the start.
const controller = new AbortController();

for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    controller.abort(name);
  });
}

/** Aborted by the first signal, its reason the signal's name, or by `interrupt`. */
export const interrupted: AbortSignal = controller.signal;

/** What a signal does, for another reason. May be called again. */
export function interrupt(reason: string): void {
  controller.abort(reason);
}
