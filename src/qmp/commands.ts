// The QMP commands that this project uses, each declared once: arguments as a type, the reply as a schema. Members of a
// reply that nobody here uses are not checked. Specification: QEMU's QMP reference manual (qapi/*.json). The oldest QEMU
// is 7.2; what came later is asked for by query-qmp-schema.
import * as v from 'valibot';
import { BridgeError } from '../errors.js';
import type { QmpExecuteOptions } from './client.js';
import type { Monitor } from './monitor.js';

/** Sizes and offsets: JSON.parse is exact up to 2^53-1; a larger one is refused rather than rounded. */
const int = v.pipe(v.number(), v.safeInteger());

const image = v.object({
  filename: v.string(),
  format: v.string(),
  'virtual-size': int,
  encrypted: v.optional(v.boolean(), false),
  /** Facts of the format: a qcow2 image tells its data file and its encryption. */
  'format-specific': v.optional(v.object({ type: v.string(), data: v.unknown() })),
  /** An image again, of the same shape; absent with `flat`. */
  'backing-image': v.optional(v.unknown()),
});
const dirtyBitmap = v.object({
  /** Absent for a bitmap of one of QEMU's own jobs. */
  name: v.optional(v.string()),
  /** What it says is dirty, in whole granules (bytes). */
  count: int,
  granularity: int,
  recording: v.boolean(),
  /** A job or an export works with it. */
  busy: v.boolean(),
  persistent: v.boolean(),
  /** It was not stored as it should have been: it can only be removed. */
  inconsistent: v.optional(v.boolean(), false),
});
const nodeChild = v.object({ child: v.string(), 'node-name': v.optional(v.string()) });
const node = v.object({
  'node-name': v.optional(v.string()),
  drv: v.string(),
  ro: v.boolean(),
  file: v.string(),
  detect_zeroes: v.picklist(['off', 'on', 'unmap']),
  cache: v.object({ writeback: v.boolean(), direct: v.boolean(), 'no-flush': v.boolean() }),
  image,
  'dirty-bitmaps': v.optional(v.array(dirtyBitmap), []),
  /** Since QEMU 10.1. */
  children: v.optional(v.array(nodeChild)),
});
const job = v.object({
  id: v.string(),
  type: v.string(),
  status: v.picklist([
    'undefined',
    'created',
    'running',
    'paused',
    'ready',
    'standby',
    'waiting',
    'pending',
    'aborting',
    'concluded',
    'null',
  ]),
  'current-progress': int,
  'total-progress': int,
  error: v.optional(v.string()),
});
const blockJob = v.object({
  device: v.string(),
  type: v.string(),
  status: v.string(),
  /** Bytes; `speed`: bytes per second, 0 for no limit. */
  offset: int,
  speed: int,
  paused: v.boolean(),
});
interface PciDevice {
  readonly bus: number;
  readonly slot: number;
  readonly function: number;
  readonly pci_bridge?: { readonly bus: { readonly secondary: number }; readonly devices?: readonly PciDevice[] };
}
const pciDevice: v.GenericSchema<unknown, PciDevice> = v.object({
  bus: int,
  slot: int,
  function: int,
  pci_bridge: v.exactOptional(
    v.object({ bus: v.object({ secondary: int }), devices: v.exactOptional(v.array(v.lazy(() => pciDevice))) }),
  ),
});

interface Declaration<A extends object, S extends v.GenericSchema> {
  /** Only its type is used. */
  readonly args?: A;
  readonly reply: S;
}
type NoArgs = Record<string, never>;
const declare =
  <A extends object = NoArgs>() =>
  <S extends v.GenericSchema>(reply: S): Declaration<A, S> => ({ reply });
const nothing = v.object({});

/** The actions of our transactions. */
export type TransactionAction =
  | {
      readonly type: 'blockdev-snapshot';
      readonly data: { readonly node: string; readonly overlay: string };
    }
  | {
      readonly type: 'block-dirty-bitmap-add';
      readonly data: {
        readonly node: string;
        readonly name: string;
        readonly granularity: number;
        readonly persistent: boolean;
      };
    }
  | {
      readonly type: 'block-dirty-bitmap-merge';
      readonly data: {
        readonly node: string;
        readonly target: string;
        readonly bitmaps: readonly { readonly node: string; readonly name: string }[];
      };
    }
  | { readonly type: 'blockdev-backup'; readonly data: BackupOptions };

/** A job that copies a node as it was when the job began: `full`, or what a bitmap of the same node says. */
interface BackupOptions {
  readonly 'job-id': string;
  readonly device: string;
  /** The name of a node of the same size. */
  readonly target: string;
  readonly sync: 'full' | 'bitmap';
  readonly bitmap?: string;
  /** What becomes of the bitmap; `never`: it goes on recording as if there had been no job. */
  readonly 'bitmap-mode'?: 'never';
  readonly speed?: number;
  readonly compress?: boolean;
  /** Pieces of up to 1 MiB that are copied at a time; 64 by default. Unstable: ask whether it is there. */
  readonly 'x-perf'?: { readonly 'max-workers': number };
  readonly 'auto-finalize': false;
  readonly 'auto-dismiss': false;
}

const qmpCommands = {
  'query-status': declare()(v.object({ status: v.string(), running: v.boolean() })),
  'query-name': declare()(v.object({ name: v.optional(v.string()) })),
  'query-uuid': declare()(v.object({ UUID: v.string() })),
  'query-block': declare()(
    v.array(
      v.object({
        device: v.string(),
        qdev: v.optional(v.string()),
        removable: v.boolean(),
        /** `nospace` or `failed` where QEMU paused the VM for an error of the disk. */
        'io-status': v.optional(v.string()),
        inserted: v.optional(node),
      }),
    ),
  ),
  'query-named-block-nodes': declare<{ flat: boolean }>()(v.array(node)),
  /** Unstable by name, there since 4.0: the only way before 10.1 to see what lies below a filter. */
  'x-debug-query-block-graph': declare()(
    v.object({
      nodes: v.array(v.object({ id: int, type: v.string(), name: v.string() })),
      edges: v.array(v.object({ parent: int, child: int, name: v.string() })),
    }),
  ),
  /** `wr_operations` of a device counts what the guest sent, whatever node is below. */
  'query-blockstats': declare<{ 'query-nodes'?: boolean }>()(
    v.array(
      v.object({
        device: v.optional(v.string()),
        qdev: v.optional(v.string()),
        'node-name': v.optional(v.string()),
        stats: v.object({
          wr_bytes: int,
          wr_operations: int,
          rd_operations: v.optional(int, 0),
          flush_operations: v.optional(int, 0),
          /** After a hundred days they are too large to be exact. */
          rd_total_time_ns: v.optional(v.number(), 0),
          wr_total_time_ns: v.optional(v.number(), 0),
          flush_total_time_ns: v.optional(v.number(), 0),
          unmap_operations: v.optional(int, 0),
          failed_rd_operations: v.optional(int, 0),
          failed_wr_operations: v.optional(int, 0),
        }),
      }),
    ),
  ),
  'query-block-jobs': declare()(v.array(blockJob)),
  /** Nodes that others read or write by NBD, vhost-user or FUSE. */
  'query-block-exports': declare()(v.array(v.object({ id: v.string(), 'node-name': v.string() }))),
  /** `frontend-open`: somebody in the guest has the port open. */
  'query-chardev': declare()(
    v.array(v.object({ label: v.string(), filename: v.string(), 'frontend-open': v.boolean() })),
  ),
  /** `arch` is the ending of QEMU's name: `x86_64`. */
  'query-target': declare()(v.object({ arch: v.string() })),
  'query-cpus-fast': declare()(v.array(v.object({ 'qom-path': v.string() }))),
  'query-memory-size-summary': declare()(v.object({ 'base-memory': int, 'plugged-memory': v.optional(int, 0) })),
  'query-migrate-capabilities': declare()(v.array(v.object({ capability: v.string(), state: v.boolean() }))),
  /** `ram`: where it comes from. */
  'query-migrate': declare()(v.object({ status: v.optional(v.string()), ram: v.optional(v.unknown()) })),
  'query-jobs': declare()(v.array(job)),
  'query-pci': declare()(v.array(v.object({ bus: int, devices: v.array(pciDevice) }))),
  'query-qmp-schema': declare()(
    v.array(
      v.object({
        name: v.string(),
        'meta-type': v.string(),
        /** Of a command: the name of the type of its arguments. */
        'arg-type': v.optional(v.string()),
        /** Of an object: its members. An enumeration has texts in QEMU before 6.2. */
        members: v.optional(v.array(v.unknown())),
      }),
    ),
  ),
  'qom-list': declare<{ path: string }>()(v.array(v.object({ name: v.string(), type: v.string() }))),
  'qom-get': declare<{ path: string; property: string }>()(v.unknown()),
  'blockdev-add': declare<BlockdevOptions | FileNode>()(nothing),
  /** An object that holds a key, which goes through the socket alone. */
  'object-add': declare<{ 'qom-type': 'secret'; id: string; data: string }>()(nothing),
  'object-del': declare<{ id: string }>()(nothing),
  /** Formats what is in the node `file`; a job. */
  'blockdev-create': declare<{ 'job-id': string; options: CreateOptions }>()(nothing),
  /** Since 6.1. Everything is flushed first, and a flush that fails is an error. */
  'blockdev-reopen': declare<{ options: readonly ReadOnlyOptions[] }>()(nothing),
  'blockdev-del': declare<{ 'node-name': string }>()(nothing),
  'block-dirty-bitmap-remove': declare<{ node: string; name: string }>()(nothing),
  transaction: declare<{ actions: readonly TransactionAction[] }>()(nothing),
  'block-commit': declare<{
    'job-id': string;
    device: string;
    'top-node': string;
    'base-node': string;
    /** The name that the layer above `top-node` is to have in its header; not for the active layer. */
    'backing-file'?: string;
    'auto-dismiss': boolean;
    /** False: when all is copied the job is `pending` until job-finalize. */
    'auto-finalize'?: boolean;
    speed?: number;
  }>()(nothing),
  /** Copies what lies below a layer into it. Without `base`: all of it; the layer's header names nothing below it then. */
  'block-stream': declare<{
    'job-id': string;
    device: string;
    'auto-finalize': false;
    'auto-dismiss': false;
    speed?: number;
  }>()(nothing),
  /** The VM's vCPUs run again. */
  cont: declare()(nothing),
  /** Bytes per second; 0 is no limit. `device`: its job. */
  'block-job-set-speed': declare<{ device: string; speed: number }>()(nothing),
  'job-finalize': declare<{ id: string }>()(nothing),
  'job-complete': declare<{ id: string }>()(nothing),
  'job-cancel': declare<{ id: string }>()(nothing),
  'job-dismiss': declare<{ id: string }>()(nothing),
  /** `png` since 7.1. */
  screendump: declare<{ filename: string; format: 'png' }>()(nothing),
  quit: declare()(nothing),
  /** Asks for one event BLOCK_WRITE_THRESHOLD when a write ends beyond the offset; 0 takes it back. */
  'block-set-write-threshold': declare<{ 'node-name': string; 'write-threshold': number }>()(nothing),
  /** For `qemu-io NODE flush`: QMP has no flush. */
  'human-monitor-command': declare<{ 'command-line': string }>()(v.string()),
} as const;

interface FileNode {
  readonly driver: 'file';
  readonly 'node-name': string;
  readonly filename: string;
}

interface Encryption {
  readonly format: 'luks';
  /** The id of an object in QEMU. */
  readonly 'key-secret': string;
}

/** What lies in a file that is encrypted as a whole. */
interface LuksNode {
  readonly driver: 'luks';
  readonly 'node-name': string;
  /** The id of an object in QEMU, which is asked for it once, when the file is opened. */
  readonly 'key-secret': string;
  readonly file: { readonly driver: 'file'; readonly filename: string };
}

export type LayerFile = FileNode | LuksNode;

/** `direct`: past the host's page cache. What is below a node and says nothing of its own does as that does. */
export interface CacheOptions {
  readonly direct: boolean;
  readonly 'no-flush': boolean;
}

/** A qcow2 layer over a file, as `blockdev-add` wants it. */
interface BlockdevOptions {
  readonly driver: 'qcow2';
  readonly 'node-name': string;
  readonly file: LayerFile;
  readonly encrypt?: Encryption;
  /** Null: opened without the backing file its header names; blockdev-snapshot attaches the node. */
  readonly backing: null;
  readonly discard: 'unmap' | 'ignore';
  readonly 'detect-zeroes': 'off' | 'on' | 'unmap';
  readonly cache: CacheOptions;
}

/** The same layer, over a node by its name. */
interface ReadOnlyOptions extends Omit<BlockdevOptions, 'file'> {
  readonly file: string;
  readonly 'read-only': true;
}

interface CreateOptions {
  readonly driver: 'qcow2';
  readonly file: string;
  readonly size: number;
  readonly 'backing-file': string;
  readonly 'backing-fmt': string;
  /** `iter-time`: milliseconds of stretching the key. */
  readonly encrypt: Encryption & { readonly 'iter-time': number };
}

type Commands = typeof qmpCommands;
export type QmpCommand = keyof Commands;
export type QmpArgs<C extends QmpCommand> = NonNullable<Commands[C]['args']>;
export type QmpReply<C extends QmpCommand> = v.InferOutput<Commands[C]['reply']>;

export type BlockNode = v.InferOutput<typeof node>;
export type DirtyBitmap = v.InferOutput<typeof dirtyBitmap>;
export type JobInfo = v.InferOutput<typeof job>;
export type JobStatus = JobInfo['status'];

/**
 * Runs a declared command and checks its reply. Throws what `QmpClient.execute` does, and a BridgeError
 * `E_MONITOR_REPLY` if the reply is not what QEMU documents.
 */
export async function runQmp<C extends QmpCommand>(
  client: Monitor,
  command: C,
  args: QmpArgs<C>,
  options?: QmpExecuteOptions,
): Promise<QmpReply<C>> {
  const given = Object.keys(args).length === 0 ? undefined : { ...args };
  const reply = await client.execute(command, given, options);
  const schema: v.GenericSchema<unknown, QmpReply<C>> = qmpCommands[command].reply;
  const parsed = v.safeParse(schema, reply);
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  const where = v.getDotPath(issue) ?? 'the reply';
  throw new BridgeError('E_MONITOR_REPLY', `monitor ${client.path}, ${command}: ${where}: ${issue.message}`);
}
