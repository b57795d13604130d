// The QEMU that runs the guests, and its version.
import { execa } from 'execa';

export const QEMU = 'qemu-system-x86_64';

let version: Promise<string> | undefined;

/** QEMU's version, as `qemu-system-x86_64 --version` prints it; asked once. */
export async function qemuVersion(): Promise<string> {
  version ??= execa(QEMU, ['--version'], { timeout: 20_000 }).then(({ stdout }) => stdout.split('\n')[0] ?? stdout);
  return await version;
}
