// Adds the block nodes of overlays to a plain QEMU, and checks them. Each is added with `backing: null`, so that only
// the transaction joins it to its base. Over an encrypted base QEMU itself makes the overlay, with the base's own
// secret, which nobody else has: what the guest writes is never in clear text. Specification: QEMU qapi/block-core.json
// (blockdev-add, blockdev-create).
import { pbkdf2Sync } from 'node:crypto';
import { defined } from '../../defined.js';
import { BridgeError, CutError } from '../../errors.js';
import { readNodes, type VmDisk } from '../../qmp/block-graph.js';
import type { QmpClient } from '../../qmp/client.js';
import { runQmp } from '../../qmp/commands.js';
import { parseImageName } from '../../qmp/image-name.js';
import { dismissJob, findJob, waitForJob } from '../../qmp/jobs.js';
import { hasObject } from '../../qmp/qdev.js';
import type { Reverter } from '../../reverter.js';
import { diskName } from './disk-choice.js';
import { overlayFailure, type Overlay } from './overlay.js';

/** How long the format may take: QEMU stretches a key in its main loop, and again to open the image, for seconds. */
const FORMAT_LIMIT_MS = 120_000;
/** QEMU's own time for it, and the bound here. */
const ITER_TIME_MS = 2000;

/** Why the overlay of an encrypted disk would not be encrypted; undefined if it would, or need not be. */
export async function whyNoEncryption(client: QmpClient, { encryption, name }: VmDisk): Promise<string | undefined> {
  if (encryption === undefined) return undefined;
  const clear = 'its overlay would hold clear text';
  const { keySecret } = parseImageName(name);
  if (encryption.format !== 'luks') return `it is encrypted by ${encryption.format}, which no overlay can be: ${clear}`;
  if (keySecret === undefined) return `QEMU does not say which secret it is encrypted with: ${clear}`;
  if (await hasObject(client, keySecret)) return undefined;
  return `its secret ${keySecret} is no longer in QEMU: ${clear}`;
}

/** Adds one, not yet in use. Throws a CutError that names the disk. */
export async function addNode(client: QmpClient, overlay: Overlay, reverter: Reverter): Promise<void> {
  const { disk, file, node } = overlay;
  reverter.push(`block node ${node}`, async () => {
    if ((await readNodes(client)).has(node)) await runQmp(client, 'blockdev-del', { 'node-name': node });
  });
  try {
    const encrypt = encryptionOf(disk);
    if (encrypt !== undefined) await formatEncrypted(client, overlay, encrypt, reverter);
    const options = {
      driver: 'qcow2',
      'node-name': node,
      file: { driver: 'file', 'node-name': `${node}-file`, filename: file },
      ...defined({ encrypt }),
      backing: null,
      // Lets the guest's discards free space in the overlay; whether it may discard is its device's setting.
      discard: 'unmap',
      'detect-zeroes': disk.detectZeroes,
      cache: { direct: disk.cache.direct, 'no-flush': disk.cache.noFlush },
    } as const;
    await runQmp(client, 'blockdev-add', options, encrypt === undefined ? {} : { timeoutMs: FORMAT_LIMIT_MS });
  } catch (cause) {
    throw overlayFailure(overlay, cause);
  }
}

interface Encryption {
  readonly format: 'luks';
  readonly 'key-secret': string;
}

function encryptionOf({ encryption, name }: VmDisk): Encryption | undefined {
  const { keySecret } = parseImageName(name);
  if (encryption === undefined || keySecret === undefined) return undefined;
  return { format: 'luks', 'key-secret': keySecret };
}

// The file's node has the overlay's own name: after a tool was killed here, the node is found by it.
async function formatEncrypted(
  client: QmpClient,
  { disk, file, node, baseName }: Overlay,
  encrypt: Encryption,
  reverter: Reverter,
): Promise<void> {
  const jobId = `${node}-create`;
  const dismiss = async (): Promise<void> => {
    if ((await findJob(client, jobId)) !== undefined) await dismissJob(client, jobId);
  };
  const options = {
    driver: 'qcow2',
    file: node,
    size: disk.virtualSize,
    'backing-file': baseName,
    'backing-fmt': disk.format,
    encrypt: { ...encrypt, 'iter-time': iterTimeMs(disk.encryption?.iterations ?? 0) },
  } as const;
  await runQmp(client, 'blockdev-add', { driver: 'file', 'node-name': node, filename: file });
  reverter.push(`job ${jobId}`, dismiss);
  for (let triesLeft = 10; ; triesLeft--) {
    await runQmp(client, 'blockdev-create', { 'job-id': jobId, options }, { timeoutMs: FORMAT_LIMIT_MS });
    try {
      await waitForJob(client, jobId, ['concluded'], { limitMs: FORMAT_LIMIT_MS, answerMs: FORMAT_LIMIT_MS });
      break;
    } catch (error) {
      // Where processor time is counted in ticks, QEMU may see none pass while it measures how fast it is.
      const isUnlucky = error instanceof BridgeError && error.message.includes('accurate CPU usage');
      if (!isUnlucky || triesLeft === 0) throw error;
      await dismiss();
    }
  }
  await dismiss();
  await runQmp(client, 'blockdev-del', { 'node-name': node });
}

// No weaker than its base, and no slower than it must be: the VM stands still meanwhile. QEMU may be faster at it than
// we are, hardly ever slower.
function iterTimeMs(iterations: number): number {
  const sample = 20_000;
  const startMs = performance.now();
  pbkdf2Sync('secret', 'salt', sample, 32, 'sha256');
  const needMs = (2 * iterations * (performance.now() - startMs)) / sample;
  return iterations === 0 ? ITER_TIME_MS : Math.max(1, Math.min(ITER_TIME_MS, Math.ceil(needMs)));
}

/** Throws a CutError unless each is a writable qcow2 of its disk's size, encrypted if its disk is. */
export async function checkAdded(client: QmpClient, overlays: readonly Overlay[]): Promise<void> {
  const nodes = await readNodes(client);
  const described = (drv: string, size: number, isEncrypted: boolean, isReadOnly: boolean): string =>
    `${isReadOnly ? 'a read-only' : 'a writable'} ${drv} of ${size} bytes${isEncrypted ? ', encrypted' : ''}`;
  for (const { disk, node } of overlays) {
    const expected = described('qcow2', disk.virtualSize, disk.encryption !== undefined, false);
    const added = nodes.get(node);
    const found =
      added === undefined
        ? 'nothing'
        : described(added.drv, added.image['virtual-size'], added.image.encrypted, added.ro);
    if (found === expected) continue;
    throw new CutError('E_OVERLAY', `overlay ${node} of disk ${diskName(disk)}: expected ${expected}, found ${found}`);
  }
}

export async function nodeIsThere(client: QmpClient, node: string): Promise<boolean> {
  return (await readNodes(client)).has(node);
}
