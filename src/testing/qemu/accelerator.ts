// Finds out which accelerator really works: /dev/kvm may be there and a guest still hang under it (nested without the right
// features). So a kernel with a tiny initrd is booted under it, with a time limit. The answer holds until the next boot of
// this machine or another QEMU. FSB_ACCEL=kvm|tcg overrides it.
import { constants } from 'node:fs';
import { access, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { UsageError } from '../../errors.js';
import { cacheDirectory, keyOf } from '../cache.js';
import { packInitrd } from '../initrd.js';
import { say } from '../progress.js';
import { QEMU, qemuVersion } from './qemu-version.js';

export type Accelerator = 'kvm' | 'tcg';

const PROBE_LIMIT_MS = 8000;
const SIGN_OF_LIFE = 'fsb-probe-alive';
const PROBE_INIT = `#!/bin/busybox sh
echo ${SIGN_OF_LIFE}
/bin/busybox poweroff -f
`;

/** The accelerator to use. `kernel` is booted when the question has not been answered since this machine started. */
export async function chooseAccelerator(kernel: string): Promise<Accelerator> {
  const wanted = process.env['FSB_ACCEL'];
  if (wanted === 'kvm' || wanted === 'tcg') return wanted;
  if (wanted !== undefined && wanted !== '') {
    throw new UsageError('E_ACCEL', `FSB_ACCEL: expected kvm or tcg, found ${wanted}`);
  }
  const usable = await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  if (!usable) return 'tcg';

  const bootId = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
  const verdictFile = path.join(cacheDirectory(), `accelerator-${keyOf(bootId, await qemuVersion())}`);
  const known = await readFile(verdictFile, 'utf8').catch(() => '');
  if (known === 'kvm' || known === 'tcg') return known;

  const verdict: Accelerator = (await bootsUnder('kvm', kernel)) ? 'kvm' : 'tcg';
  if (verdict === 'tcg')
    say(`/dev/kvm is there, but no guest comes up under it within ${PROBE_LIMIT_MS / 1000} s: using TCG`);
  await mkdir(cacheDirectory(), { recursive: true });
  await writeFile(`${verdictFile}.${process.pid}`, verdict);
  await rename(`${verdictFile}.${process.pid}`, verdictFile);
  return verdict;
}

/** QEMU's options for an accelerator. */
export function acceleratorArguments(accelerator: Accelerator): string[] {
  return accelerator === 'kvm' ? ['-accel', 'kvm', '-cpu', 'host'] : ['-accel', 'tcg,thread=multi'];
}

/** Boots `kernel` with an initrd that prints one line; true if that line came within the limit. */
async function bootsUnder(accelerator: Accelerator, kernel: string, limitMs = PROBE_LIMIT_MS): Promise<boolean> {
  const scratch = await mkdtemp(path.join(tmpdir(), 'fsb-probe-'));
  try {
    const initrd = path.join(scratch, 'initrd.gz');
    await packInitrd(initrd, path.join(scratch, 'tree'), PROBE_INIT);
    const machine = ['-machine', 'pc', '-m', '256', '-smp', '2', '-nodefaults', '-display', 'none', '-no-reboot'];
    const boot = ['-kernel', kernel, '-initrd', initrd, '-append', 'console=ttyS0 quiet panic=-1', '-serial', 'stdio'];
    const { stdout } = await execa(
      'setpriv',
      ['--pdeathsig', 'KILL', '--', QEMU, ...acceleratorArguments(accelerator), ...machine, ...boot],
      { stdin: 'ignore', reject: false, timeout: limitMs, killSignal: 'SIGKILL' },
    );
    return stdout.includes(SIGN_OF_LIFE);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
