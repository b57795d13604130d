// Kernel and firmware of this host with which a guest is started. A record names them, and whoever may write to a
// repository writes its records: root would read any file of the host for a guest of his.
import { stat } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { UsageError } from '../../errors.js';
import { exists } from '../images/durable-file.js';
import type { MachineFacts } from '../vm/machine-facts.js';

interface HostFile {
  readonly file: string;
  /** For people, as the rest of a sentence about the file. */
  readonly what: string;
  /** What to type instead. */
  readonly give: string;
}

const GIVE_KERNEL = 'give --qemu-arg=-kernel --qemu-arg=FILE (and -initrd)';
const GIVE_FIRMWARE = 'give --qemu-arg=-bios --qemu-arg=FILE';
const OTHERS_MAY_WRITE = 0o022;

/**
 * The facts without the files of this host in whose place the user gives others. `folders` are those of the record and
 * those above it in the repository. Throws a UsageError `E_BOOT` if a file that is left is not there, or is not to be
 * given to the guest since others may write to the record.
 */
export async function withHostFiles(
  recorded: MachineFacts,
  qemuArgs: readonly string[],
  folders: readonly string[],
): Promise<MachineFacts> {
  const facts = withoutGiven(recorded, qemuArgs);
  const files = hostFilesOf(facts);
  const open = files.length === 0 ? undefined : await openToOthers(folders);
  for (const { file, what, give } of files) {
    if (open !== undefined) {
      const message = `${file}, ${what}, is named by a record that others may change (${open}): ${give}`;
      throw new UsageError('E_BOOT', message);
    }
    if (!isAbsolute(file)) throw new UsageError('E_BOOT', `${file}, ${what}: expected an absolute path; ${give}`);
    if (!(await exists(file))) throw new UsageError('E_BOOT', `${file}, ${what}, is not on this host: ${give}`);
  }
  const { firmware = '' } = facts;
  // QEMU looks for a bare name in the working directory before it looks among its own files.
  if (firmware !== '' && !firmware.includes('/') && (await exists(firmware))) {
    throw new UsageError(
      'E_BOOT',
      `a ${firmware} lies in the working directory, and QEMU's own is meant: work elsewhere`,
    );
  }
  return facts;
}

function withoutGiven(facts: MachineFacts, qemuArgs: readonly string[]): MachineFacts {
  const { kernel, initrd, firmware, flash, ...rest } = facts;
  const hasKernel = qemuArgs.includes('-kernel');
  const hasFirmware = qemuArgs.some((word) => word === '-bios' || word === '-pflash' || word.includes('if=pflash'));
  return {
    ...rest,
    ...(hasKernel ? {} : { kernel, initrd }),
    ...(hasFirmware ? { flash: [] } : { firmware, flash }),
  };
}

function hostFilesOf({ kernel, initrd, firmware, flash }: MachineFacts): HostFile[] {
  const started = 'with which the guest was started';
  const code = flash.filter(({ readOnly }) => readOnly).map(({ file }) => file);
  // A name without a folder is QEMU's own file; what lies in flash comes before it.
  if (flash.length === 0 && firmware?.includes('/') === true) code.push(firmware);
  return [
    ...[kernel, initrd].flatMap((file) => (file === undefined ? [] : [{ file, what: started, give: GIVE_KERNEL }])),
    ...code.map((file) => ({ file, what: 'the firmware of the guest', give: GIVE_FIRMWARE })),
  ];
}

/** Which folder somebody else than root and this process may write to, and why; undefined if none. */
export async function openToOthers(folders: readonly string[]): Promise<string | undefined> {
  for (const folder of folders) {
    const { uid, mode } = await stat(folder);
    if (uid !== 0 && uid !== process.geteuid?.()) return `${folder} belongs to user ${uid}`;
    if ((mode & OTHERS_MAY_WRITE) !== 0) return `${folder} has mode ${(mode & 0o7777).toString(8)}`;
  }
  return undefined;
}
