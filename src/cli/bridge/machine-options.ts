// Options of the commands that start a guest from a run: on what machine, if not as recorded.
import type { Argv } from 'yargs';
import { UsageError } from '../../errors.js';
import { acceleratorChoices, diskBuses, type DiskBus, type MachineChoice } from '../../host/boot/boot-options.js';
import { byteSize } from './options.js';

export interface MachineArgs {
  accel: MachineChoice['accelerator'];
  machine: string | undefined;
  memory: string | undefined;
  cpus: number | undefined;
  'disk-bus': DiskBus | undefined;
  'qemu-arg': string[];
}

export const bootTimeout = {
  type: 'number',
  default: 300,
  describe: "seconds until the guest's agent must have answered",
  group: 'Limits:',
} as const;

export function withMachine<T>(yargs: Argv<T>, group: string): Argv<T & MachineArgs> {
  return yargs
    .option('accel', {
      choices: acceleratorChoices,
      default: 'auto' as const,
      describe: 'auto: KVM if this host has it, and emulation where a guest fails under it',
      group,
    })
    .option('machine', { type: 'string', describe: "QEMU's machine, q35 for instance, if not as recorded", group })
    .option('memory', { type: 'string', describe: 'memory, as 2G or 512M, if not as recorded', group })
    .option('cpus', { type: 'number', describe: 'processors, if not as recorded', group })
    .option('disk-bus', { choices: diskBuses, describe: 'of every disk, if not as recorded', group })
    .option('qemu-arg', {
      type: 'string',
      array: true,
      nargs: 1,
      default: [] as string[],
      describe: 'one more word for QEMU, as --qemu-arg=-cpu --qemu-arg=max',
      group,
    });
}

/** Throws a UsageError `E_LIMIT`. */
export function machineChoice(args: MachineArgs): MachineChoice {
  const { cpus, memory } = args;
  if (cpus !== undefined && !(Number.isSafeInteger(cpus) && cpus >= 1 && cpus <= 1024)) {
    throw new UsageError('E_LIMIT', `--cpus: expected a whole number from 1 to 1024, found ${cpus}`);
  }
  return {
    accelerator: args.accel,
    machine: args.machine,
    memoryBytes: memory === undefined ? undefined : byteSize('memory', memory),
    cpus,
    diskBus: args['disk-bus'],
    qemuArgs: args['qemu-arg'],
  };
}

/** Those of the options that were given and say something of a machine. */
export function givenOfMachine(args: MachineArgs): string[] {
  const { machine, memory, cpus } = args;
  const values = { machine, memory, cpus, 'disk-bus': args['disk-bus'], 'qemu-arg': args['qemu-arg'][0] };
  return Object.entries({ ...values, accel: args.accel === 'auto' ? undefined : args.accel })
    .filter(([, value]) => value !== undefined)
    .map(([name]) => `--${name}`);
}
