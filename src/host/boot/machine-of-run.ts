// On what machine a run is started: what is recorded with it, or with an earlier run of the VM, and what its user says.
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import type { VmFolder } from '../repository/layout.js';
import type { RunManifest } from '../repository/run-manifest.js';
import { MACHINE_TEXT, machineFactsSchema, type MachineFacts } from '../vm/machine-facts.js';
import type { MachineChoice } from './boot-options.js';
import { withHostFiles } from './host-files.js';
import { readSavedFile } from './saved-file.js';

/** What a VM's UEFI firmware, kernel and controllers were is unknown where nothing is recorded. */
const NOT_RECORDED = { format: 1, cpu: 'max', flash: [], disks: [] } as const;

/**
 * Throws a UsageError `E_BOOT` that says what to give, if nothing is recorded and the user does not say enough, and if what
 * is recorded is not to be handed to QEMU.
 */
export async function machineOfRun(
  folder: VmFolder,
  runs: readonly RunManifest[],
  manifest: RunManifest,
  { machine, memoryBytes, cpus, qemuArgs }: MachineChoice,
): Promise<MachineFacts> {
  // A run of a VM that was shut off has none: nobody could be asked.
  const earlier = runs.filter(({ number }) => number <= manifest.number).toReversed();
  let recorded: MachineFacts | undefined;
  for (const run of earlier) recorded ??= await recordedMachine(folder, run, qemuArgs);
  if (recorded !== undefined) return { ...recorded, ...defined({ machine, memoryBytes, cpus }) };
  if (machine !== undefined && memoryBytes !== undefined) {
    return { ...NOT_RECORDED, disks: [], flash: [], arch: known(hostArch()), machine, memoryBytes, cpus: cpus ?? 1 };
  }
  const message = `run ${manifest.run} does not tell on which machine its disks ran: give --machine and --memory (and --disk-bus, --cpus, --qemu-arg as needed)`;
  throw new UsageError('E_BOOT', message);
}

async function recordedMachine(
  folder: VmFolder,
  { run, saved }: RunManifest,
  qemuArgs: readonly string[],
): Promise<MachineFacts | undefined> {
  const entry = saved.find(({ name }) => name === MACHINE_TEXT);
  if (entry === undefined) return undefined;
  const own = folder.run(run);
  const parsed = v.safeParse(machineFactsSchema, jsonOf(await readSavedFile(own, entry)));
  if (!parsed.success) {
    const [{ message }] = parsed.issues;
    const place = v.getDotPath(parsed.issues[0]) ?? 'it';
    throw new UsageError('E_BOOT', `${join(own, entry.name)} describes no machine: ${place}: ${message}`);
  }
  known(parsed.output.arch);
  return await withHostFiles(parsed.output, qemuArgs, [dirname(folder.path), folder.path, own]);
}

function jsonOf(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}

/** Of these QEMU has virtual machines; the name is part of that of a program. */
const architectures = ['x86_64', 'i386', 'aarch64', 'arm', 'riscv64', 'ppc64', 's390x'];

function known(arch: string): string {
  if (architectures.includes(arch)) return arch;
  throw new UsageError('E_BOOT', `expected a machine of one of ${architectures.join(', ')}, found ${arch}`);
}

const hostArchitectures: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64', riscv64: 'riscv64' };

/** This host's, as QEMU calls it. */
export function hostArch(): string {
  return hostArchitectures[process.arch] ?? process.arch;
}
