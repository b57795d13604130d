// Tells the service manager's watchdog (WatchdogSec= in the unit) that this event loop still turns. Node has no
// datagram sockets: the freezer program passes the word on, as a child that is started once (qga/freezer/heartbeat.h).
// While the guest is held the watchdog expects nothing: the end of this process would then come in the way of the thaw.
import { spawn, type ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';

export interface Heartbeat {
  /** The guest may be held from now on: for the limit given, the loop may stand still. */
  hold(): void;
  /** The guest is not held any more. May be called when it was not held. */
  release(): void;
}

export interface HeartbeatOptions {
  /**
   * The environment of this process. The variables that the service manager meant for this process alone are deleted.
   */
  readonly env: Record<string, string | undefined>;
  readonly freezer: string;
  /** The loop may stand still for so many seconds after `hold`. */
  readonly holdAtMostS: number;
  /** The child could not be started, or has ended: the service manager hears nothing until there is a child again. */
  readonly onError: (error: Error) => void;
}

const none: Heartbeat = { hold() {}, release() {} };
/** Before another child is started. */
const AGAIN_MS = 1000;

/** Starts a heartbeat if the service manager has asked for one (sd_watchdog_enabled(3)). Keeps no process alive. */
export function startHeartbeat({ env, freezer, holdAtMostS, onError }: HeartbeatOptions): Heartbeat {
  const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID } = env;
  for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) Reflect.deleteProperty(env, name);
  const isAsked = NOTIFY_SOCKET !== undefined && /^[1-9]\d*$/.test(WATCHDOG_USEC ?? '');
  if (!isAsked || (WATCHDOG_PID !== undefined && WATCHDOG_PID !== String(process.pid))) return none;
  let held = false;
  let child: ChildProcess | undefined;
  const say = (letter: string): void => void child?.stdin?.write(letter);
  const start = (): void => {
    let isOver = false;
    const over = (error: Error): void => {
      if (isOver) return;
      isOver = true;
      onError(error);
      setTimeout(start, AGAIN_MS).unref();
    };
    try {
      child = spawn(freezer, ['--heartbeat', String(holdAtMostS)], {
        env: { NOTIFY_SOCKET, WATCHDOG_USEC },
        stdio: ['pipe', 'ignore', 'ignore'],
        detached: true,
      });
    } catch (error) {
      // Without memory or file descriptors spawn throws at once.
      child = undefined;
      over(error as Error);
      return;
    }
    child.once('error', over);
    child.once('exit', (code, signal) => {
      over(new Error(`${freezer} --heartbeat ended: ${code ?? signal}`));
    });
    // The child has ended, which `exit` tells.
    child.stdin?.on('error', () => undefined);
    child.unref();
    (child.stdin as Socket | null)?.unref();
    say(held ? 'h' : '.');
  };
  start();
  setInterval(
    () => {
      say('.');
    },
    Number(WATCHDOG_USEC) / 3000,
  ).unref();
  return {
    hold() {
      held = true;
      say('h');
    },
    release() {
      if (held) say('r');
      held = false;
    },
  };
}
