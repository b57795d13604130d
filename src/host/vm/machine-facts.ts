// What a VM needs beside its disks to be started somewhere else: machine, processors, memory, firmware, and on what each
// disk hangs. A plain QEMU keeps its command line nowhere, so QEMU itself is asked, which also knows what was plugged since.
// Kept with a backup as a text; boot/ starts a guest by it.
import * as v from 'valibot';
import { defined } from '../../defined.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import { runQmp } from '../../qmp/commands.js';
import { QmpError } from '../../qmp/errors.js';
import type { Monitor } from '../../qmp/monitor.js';
import { controllerTypeOf, deviceTypeOf, propertyOf } from '../../qmp/qdev.js';
import { agentPortName } from './agent-port.js';
import { imageFormats, isFirmware } from './disk-choice.js';
import type { VmDescription } from './hypervisor.js';

/** The name of its text among those of a run. */
export const MACHINE_TEXT = 'machine.json';

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
// All of it becomes part of a command line that root runs, and others may have written it: no name can end an option of
// QEMU's and begin another one, and no text holds what no argument can.
const name = v.pipe(v.string(), v.regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]*$/));
const text = v.pipe(v.string(), v.regex(/^[^\0]*$/));

export const machineFactsSchema = v.strictObject({
  format: v.literal(1),
  /** The ending of QEMU's name: `x86_64`. */
  arch: name,
  /** As `-machine` takes it: `pc-q35-7.2`. */
  machine: name,
  /** As `-cpu` takes it. */
  cpu: name,
  cpus: count,
  memoryBytes: count,
  /** As `-bios` takes it; what lies in flash comes before it. */
  firmware: v.optional(text),
  flash: v.array(
    v.strictObject({
      file: text,
      format: v.pipe(v.string(), v.regex(new RegExp(`^(${imageFormats.join('|')})$`))),
      readOnly: v.boolean(),
    }),
  ),
  kernel: v.optional(text),
  initrd: v.optional(text),
  append: v.optional(text),
  /** By id, as in the run's manifest. */
  disks: v.array(
    v.strictObject({
      id: text,
      /** `virtio-blk-device`, `scsi-hd`, ... */
      model: v.optional(name),
      /** What it hangs on: `virtio-scsi-pci`, ... */
      controller: v.optional(name),
      /** When the firmware tries it, the lowest first; absent where the order of the machine counts. */
      bootIndex: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
    }),
  ),
  /** The guest's name of the virtio-serial port that its agent has. */
  agentPort: v.optional(text),
});
export type MachineFacts = v.InferOutput<typeof machineFactsSchema>;

/**
 * The text; none where QEMU does not tell, or has no machine (one that stands in for a VM that is shut off). `agentSocket`:
 * the host's end of the agent's port. Throws what `runQmp` does when the monitor is lost.
 */
export async function describeMachine(
  monitor: Monitor,
  disks: readonly VmDisk[],
  agentSocket: string | undefined,
): Promise<VmDescription['texts']> {
  let facts: MachineFacts | undefined;
  try {
    facts = await readMachine(monitor, disks, agentSocket);
  } catch (error) {
    // A command that this QEMU does not have.
    if (!(error instanceof QmpError)) throw error;
  }
  if (facts === undefined) return [];
  const text = `${JSON.stringify(facts, undefined, 2)}\n`;
  return [{ name: MACHINE_TEXT, what: 'the machine, as QEMU tells it', text }];
}

async function readMachine(
  monitor: Monitor,
  disks: readonly VmDisk[],
  agentSocket: string | undefined,
): Promise<MachineFacts | undefined> {
  const machine = await textOf(monitor, 'type');
  const cpus = await runQmp(monitor, 'query-cpus-fast', {});
  const [first] = cpus;
  if (machine === undefined || first === undefined) return undefined;
  const { arch } = await runQmp(monitor, 'query-target', {});
  const memory = await runQmp(monitor, 'query-memory-size-summary', {});
  const cpu = (await deviceTypeOf(monitor, first['qom-path'])) ?? 'max';
  const agentPort = agentSocket === undefined ? undefined : await agentPortName(monitor, agentSocket);
  return {
    format: 1,
    arch,
    machine: machine.replace(/-machine$/, ''),
    // Behind it stands the name of the family, `arm` for aarch64.
    cpu: cpu.replace(/-[a-z0-9_]+-cpu$/, ''),
    cpus: cpus.length,
    memoryBytes: memory['base-memory'] + memory['plugged-memory'],
    flash: disks.filter(isFirmware).map(({ file, format, readOnly }) => ({ file, format, readOnly })),
    ...defined({
      firmware: await textOf(monitor, 'firmware'),
      kernel: await textOf(monitor, 'kernel'),
      initrd: await textOf(monitor, 'initrd'),
      append: await textOf(monitor, 'append'),
    }),
    disks: await Promise.all(disks.filter((disk) => !isFirmware(disk)).map((disk) => busOf(monitor, disk))),
    ...defined({ agentPort }),
  };
}

async function busOf(monitor: Monitor, { id, qdev, model }: VmDisk): Promise<MachineFacts['disks'][number]> {
  const controller = qdev === undefined ? undefined : await controllerTypeOf(monitor, qdev);
  const index = qdev === undefined ? undefined : await propertyOf(monitor, qdev, 'bootindex');
  // -1: none.
  const bootIndex = typeof index === 'number' && index >= 0 ? index : undefined;
  return { id, ...defined({ model, controller, bootIndex }) };
}

async function textOf(monitor: Monitor, property: string): Promise<string | undefined> {
  const value = await propertyOf(monitor, '/machine', property);
  return typeof value === 'string' && value !== '' ? value : undefined;
}
