// The monitor of a libvirt domain, asked through libvirt (`virsh qemu-monitor-command`). Only questions are let
// through, so that libvirt's view of the VM stays true; the answer to a question that cannot change while the VM runs
// is kept.
import * as v from 'valibot';
import { defined } from '../../../defined.js';
import { BridgeError, UnreachableError } from '../../../errors.js';
import type { QmpConnectOptions, QmpExecuteOptions, QmpVersion } from '../../../qmp/client.js';
import { QmpError } from '../../../qmp/errors.js';
import type { Monitor } from '../../../qmp/monitor.js';
import type { Virsh } from './virsh.js';

const replySchema = v.union([
  v.object({ return: v.unknown() }),
  v.object({ error: v.object({ class: v.string(), desc: v.string() }) }),
]);
const versionSchema = v.object({
  qemu: v.object({ major: v.number(), minor: v.number(), micro: v.number() }),
  package: v.string(),
});

const isQuestion = /^(query-[a-z-]+|x-debug-query-block-graph|qom-get|qom-list)$/;
/** Properties of devices and the buses they hang on, which a question about disks asks dozens of times. */
const isLasting = /^(qom-get|query-pci|query-name|query-uuid|query-qmp-schema)$/;

export class LibvirtMonitor implements Monitor {
  readonly path: string;
  readonly version: QmpVersion;
  readonly #virsh: Virsh;
  readonly #log: NonNullable<QmpConnectOptions['log']>;
  readonly #kept = new Map<string, Promise<unknown>>();
  #lastId = 0;

  private constructor(virsh: Virsh, version: QmpVersion, log: QmpConnectOptions['log']) {
    this.#virsh = virsh;
    this.path = virsh.where;
    this.version = version;
    this.#log = log ?? (() => undefined);
  }

  /** Throws what Virsh.run does: an UnreachableError `E_MONITOR` if the domain is shut off. */
  static async open(virsh: Virsh, { timeoutMs = 5000, log }: QmpConnectOptions): Promise<LibvirtMonitor> {
    const reply = v.safeParse(versionSchema, await ask(virsh, 'query-version', undefined, timeoutMs));
    if (!reply.success) throw new BridgeError('E_MONITOR_REPLY', `${virsh.where}, query-version: no QEMU version`);
    const { qemu, package: distribution } = reply.output;
    return new LibvirtMonitor(virsh, { ...qemu, package: distribution }, log);
  }

  /** Throws what Virsh.run does, a QmpError for what QEMU refuses, and an Error for a command that is no question. */
  async execute(command: string, args?: object, { timeoutMs = 10_000 }: QmpExecuteOptions = {}): Promise<unknown> {
    if (!isQuestion.test(command)) throw new Error(`${command} would change ${this.path} behind libvirt's back`);
    if (!isLasting.test(command)) return await this.#ask(command, args, timeoutMs);
    const key = `${command} ${JSON.stringify(args)}`;
    const kept = this.#kept.get(key) ?? this.#ask(command, args, timeoutMs);
    this.#kept.set(key, kept);
    return await kept;
  }

  async #ask(command: string, args: object | undefined, timeoutMs: number): Promise<unknown> {
    return await this.logged(command, () => ask(this.#virsh, command, args, timeoutMs));
  }

  /** Does something else through libvirt, and writes it down beside the questions. */
  async logged<T>(command: string, work: () => Promise<T>): Promise<T> {
    const id = ++this.#lastId;
    const now = (): bigint => process.hrtime.bigint();
    this.#log({ direction: 'sent', command, id, monotonicNs: now() });
    let ok = false;
    try {
      const result = await work();
      ok = true;
      return result;
    } finally {
      this.#log({ direction: 'answered', command, id, monotonicNs: now(), ok });
    }
  }
}

async function ask(virsh: Virsh, command: string, args: object | undefined, timeoutMs: number): Promise<unknown> {
  const text = JSON.stringify({ execute: command, ...defined({ arguments: args }) });
  const reply = v.safeParse(
    replySchema,
    parse(virsh, await virsh.run('qemu-monitor-command', ['--cmd', text], timeoutMs)),
  );
  if (!reply.success) throw foreign(virsh);
  if ('error' in reply.output) throw new QmpError(command, reply.output.error.class, reply.output.error.desc);
  return reply.output.return;
}

function parse(virsh: Virsh, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw foreign(virsh);
  }
}

function foreign({ where }: Virsh): UnreachableError {
  return new UnreachableError('E_MONITOR_PROTOCOL', `${where}: virsh qemu-monitor-command gave no answer of QEMU's`);
}
