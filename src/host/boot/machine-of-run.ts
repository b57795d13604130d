// On what machine a run is started: what is recorded with it, or with an earlier run of the VM, and what its user says.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import type { VmFolder } from '../repository/layout.js';
import type { RunManifest } from '../repository/run-manifest.js';
import { MACHINE_TEXT, machineFactsSchema, type MachineFacts } from '../vm/machine-facts.js';
import type { MachineChoice } from './boot-options.js';

/** What a VM's UEFI firmware, kernel and controllers were is unknown where nothing is recorded. */
const NOT_RECORDED = { format: 1, cpu: 'max', flash: [], disks: [] } as const;

/**
 * Throws a UsageError `E_BOOT` that says what to give, if nothing is recorded and the user does not say enough.
 */
export async function machineOfRun(
  folder: VmFolder,
  runs: readonly RunManifest[],
  manifest: RunManifest,
  { machine, memoryBytes, cpus }: MachineChoice,
): Promise<MachineFacts> {
  // A run of a VM that was shut off has none: nobody could be asked.
  const earlier = runs.filter(({ number }) => number <= manifest.number).toReversed();
  let recorded: MachineFacts | undefined;
  for (const run of earlier) recorded ??= await recordedMachine(folder, run);
  if (recorded !== undefined) return { ...recorded, ...defined({ machine, memoryBytes, cpus }) };
  if (machine !== undefined && memoryBytes !== undefined) {
    return { ...NOT_RECORDED, disks: [], flash: [], arch: hostArch(), machine, memoryBytes, cpus: cpus ?? 1 };
  }
  const message = `run ${manifest.run} does not tell on which machine its disks ran: give --machine and --memory (and --disk-bus, --cpus, --qemu-arg as needed)`;
  throw new UsageError('E_BOOT', message);
}

async function recordedMachine(folder: VmFolder, { run, saved }: RunManifest): Promise<MachineFacts | undefined> {
  const entry = saved.find(({ name }) => name === MACHINE_TEXT);
  if (entry === undefined) return undefined;
  const file = join(folder.run(run), entry.name);
  const bytes = await readFile(file).catch((cause: unknown) => {
    throw new UsageError('E_BOOT', `cannot read ${file}`, { cause });
  });
  const parsed = v.safeParse(machineFactsSchema, jsonOf(bytes));
  const isWhole = createHash('sha256').update(bytes).digest('hex') === entry.sha256;
  if (isWhole && parsed.success) return parsed.output;
  throw new UsageError('E_BOOT', `${file} is not what was recorded of the machine: see "backup verify"`);
}

function jsonOf(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}

const architectures: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64', riscv64: 'riscv64' };

/** This host's, as QEMU calls it. */
export function hostArch(): string {
  return architectures[process.arch] ?? process.arch;
}
