// Shutdown and suspend by init's own programs, tried in qemu-ga's order. On success nothing is answered.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BridgeError } from '../../errors.js';
import { readValue } from '../../linux/kernel-values.js';
import { refuse } from '../../qga/server.js';
import { RemoteError } from '../../rpc/errors.js';
import { errnoText } from '../errno-text.js';
import { isExecutable, runAction } from '../program.js';
import { LOOK_LIMIT_MS, type Sources } from '../kernel-files.js';
import { family } from './types.js';

/** init takes the order and answers; carrying it out takes its own time. */
const ORDER_LIMIT_MS = 60_000;

const shutdownModes = {
  powerdown: { program: '/sbin/poweroff', flag: '-P' },
  halt: { program: '/sbin/halt', flag: '-H' },
  reboot: { program: '/sbin/reboot', flag: '-r' },
} as const;

type SuspendMode = 'disk' | 'ram' | 'hybrid';

/** How each mode is called: systemd's unit and verb, pm-utils' check and program, and the kernel's word. */
const suspendModes = {
  disk: { unit: 'systemd-hibernate', verb: 'hibernate', check: '--hibernate', program: 'pm-hibernate', word: 'disk' },
  ram: { unit: 'systemd-suspend', verb: 'suspend', check: '--suspend', program: 'pm-suspend', word: 'mem' },
  hybrid: {
    unit: 'systemd-hybrid-sleep',
    verb: 'hybrid-sleep',
    check: '--suspend-hybrid',
    program: 'pm-suspend-hybrid',
    word: undefined,
  },
} as const;

export function powerHandlers(sources: Sources) {
  return family({
    async 'guest-shutdown'({ mode = 'powerdown' }) {
      await shutdown(sources, mode);
      return {};
    },
    'guest-suspend-disk': () => suspend(sources, 'disk'),
    'guest-suspend-ram': () => suspend(sources, 'ram'),
    'guest-suspend-hybrid': () => suspend(sources, 'hybrid'),
  });
}

async function shutdown({ run, compat }: Sources, mode: string): Promise<void> {
  // The bracket that is never closed is QEMU's.
  if (!isShutdownMode(mode)) return refuse('mode is invalid (valid values are: halt|powerdown|reboot');
  const { program, flag } = shutdownModes[mode];
  const command = isExecutable(program)
    ? ([program] as const)
    : (['/sbin/shutdown', '-h', flag, '+0', 'hypervisor initiated shutdown'] as const);
  await runAction(run, compat, 'shutdown', command, { limitMs: ORDER_LIMIT_MS });
}

function isShutdownMode(mode: string): mode is keyof typeof shutdownModes {
  return Object.hasOwn(shutdownModes, mode);
}

/** Tries one way to suspend after another, if it is there. Throws the error of the last one that was tried. */
async function suspend(sources: Sources, mode: SuspendMode): Promise<Record<string, never>> {
  const { unit, verb, check, program, word } = suspendModes[mode];
  let last: RemoteError | undefined;
  const attempt = async (work: () => Promise<void> | void): Promise<boolean> => {
    try {
      await work();
      return true;
    } catch (error) {
      if (!(error instanceof RemoteError)) throw error;
      last = error;
      return false;
    }
  };
  // systemctl status: 1 to 3 for a unit that is there but does not run, 4 for one that is unknown.
  const status = await exitCodeOf(sources, 'systemctl', ['status', unit], LOOK_LIMIT_MS);
  if (status !== undefined && status > 0 && status < 4) {
    if (await attempt(() => helper(sources, 'systemctl', [verb], `systemctl ${verb}`))) return {};
  }
  if ((await exitCodeOf(sources, 'pm-is-supported', [check], LOOK_LIMIT_MS)) === 0) {
    if (await attempt(() => helper(sources, program, [], program))) return {};
  }
  if (word !== undefined && kernelStates(sources).includes(word)) {
    if (
      await attempt(() => {
        writeState(sources, word);
      })
    )
      return {};
  }
  throw last ?? new RemoteError('GenericError', 'the requested suspend mode is not supported by the guest');
}

/** Undefined if the program is not there or was ended by a signal. */
async function exitCodeOf({ run }: Sources, file: string, args: readonly string[], limitMs: number) {
  try {
    return (await run(file, args, { limitMs })).exitCode;
  } catch (error) {
    if (error instanceof BridgeError && error.code === 'E_NO_PROGRAM') return undefined;
    throw error;
  }
}

async function helper(sources: Sources, file: string, args: readonly string[], name: string): Promise<void> {
  const exitCode = await exitCodeOf(sources, file, args, ORDER_LIMIT_MS);
  if (exitCode === undefined) refuse(`the helper program '${name}' was not found`);
  if (exitCode !== 0) refuse(`the helper program '${name}' returned an unexpected exit status code (${exitCode})`);
}

function kernelStates({ sysRoot }: Sources): readonly string[] {
  return readValue(join(sysRoot, 'power/state'))?.split(/\s+/) ?? [];
}

function writeState({ sysRoot }: Sources, word: string): void {
  const path = join(sysRoot, 'power/state');
  try {
    writeFileSync(path, word, { flag: 'r+' });
  } catch (error) {
    refuse(`suspend: cannot write to '${path}': ${errnoText(error)}`);
  }
}
