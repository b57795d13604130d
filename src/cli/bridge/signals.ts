// Makes SIGINT, SIGTERM and SIGHUP interrupt the command, which thaws the guest before it goes. None of them ends the
// process by itself, however often it comes. main.ts imports this file first, so that signals are taken from the start.
const controller = new AbortController();

for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    controller.abort(name);
  });
}

/** Aborted by the first signal, with its name as the reason, or by `interrupt`. */
export const interrupted: AbortSignal = controller.signal;

/** Interrupts the command as a signal does, for another reason. May be called again. */
export function interrupt(reason: string): void {
  controller.abort(reason);
}
