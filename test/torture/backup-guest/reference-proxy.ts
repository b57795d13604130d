// Between the host tool and QEMU's monitor: adds to the tool's transaction a full copy of each disk by QEMU itself. What a
// run holds can then be compared with what the disks held at the same instant.
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Socket } from 'node:net';
import { execa } from 'execa';
import * as v from 'valibot';
import { DeadlineError } from '../../../src/errors.js';
import type { QemuGuest } from '../../../src/testing/index.js';
import { MonitorProxy, onLines } from '../../support/monitor-proxy.js';

const LIMIT_MS = 600_000;
const Jobs = v.array(v.looseObject({ id: v.string(), status: v.string(), error: v.optional(v.string()) }));

export interface ReferenceDisk {
  readonly node: string;
  readonly size: number;
}

export class ReferenceProxy extends MonitorProxy {
  readonly #guest: QemuGuest;
  readonly #disks: readonly ReferenceDisk[];
  readonly #folder: string;
  /** How many transactions had copies added. */
  #added = 0;

  private constructor(guest: QemuGuest, disks: readonly ReferenceDisk[], folder: string) {
    super(path.join(folder, 'reference.sock'), guest.qmpPath);
    this.#guest = guest;
    this.#disks = disks;
    this.#folder = folder;
  }

  /** `folder`: where the copies come to lie. */
  static async start(guest: QemuGuest, disks: readonly ReferenceDisk[], folder: string): Promise<ReferenceProxy> {
    for (const { node, size } of disks) {
      const file = path.join(folder, `${node}.raw`);
      await execa('truncate', ['-s', String(size), file]);
      const target = { 'node-name': jobOf(node), driver: 'raw', file: { driver: 'file', filename: file } };
      await guest.monitor.execute('blockdev-add', { ...target, discard: 'unmap' });
    }
    return await new ReferenceProxy(guest, disks, folder).listen();
  }

  protected override pass(tool: Socket, monitor: Socket): void {
    onLines(tool, (line) => {
      monitor.write(`${this.#withCopies(line)}\n`);
    });
    onLines(monitor, (line) => {
      tool.write(`${line}\n`);
    });
  }

  #withCopies(line: string): string {
    const request = JSON.parse(line) as { execute: string; arguments?: { actions?: { type: string }[] } };
    const { actions } = request.arguments ?? {};
    if (request.execute !== 'transaction' || actions?.some(({ type }) => type === 'blockdev-backup') !== true)
      return line;
    this.#added++;
    const copies = this.#disks.map(({ node }) => ({
      type: 'blockdev-backup',
      data: { 'job-id': jobOf(node), device: node, target: jobOf(node), sync: 'full', 'auto-dismiss': false },
    }));
    return JSON.stringify({ ...request, arguments: { ...request.arguments, actions: [...actions, ...copies] } });
  }

  /** The copies, once they are whole: raw files by the nodes of the disks. Throws if there was not one transaction. */
  async copies(): Promise<ReadonlyMap<string, string>> {
    if (this.#added !== 1) throw new Error(`expected one transaction with backups, found ${this.#added}`);
    const end = performance.now() + LIMIT_MS;
    for (;;) {
      const jobs = v.parse(Jobs, await this.#guest.monitor.execute('query-jobs'));
      const ours = jobs.filter(({ id }) => id.startsWith(jobOf('')));
      const failed = ours.find(({ error }) => error !== undefined);
      if (failed !== undefined) throw new Error(`${failed.id}: ${failed.error ?? ''}`);
      if (ours.length === this.#disks.length && ours.every(({ status }) => status === 'concluded')) break;
      if (performance.now() > end) throw new DeadlineError('reference copies', LIMIT_MS);
      await sleep(100);
    }
    for (const { node } of this.#disks) {
      await this.#guest.monitor.execute('job-dismiss', { id: jobOf(node) });
      await this.#guest.monitor.execute('blockdev-del', { 'node-name': jobOf(node) });
    }
    return new Map(this.#disks.map(({ node }) => [node, path.join(this.#folder, `${node}.raw`)]));
  }

  async removeCopies(): Promise<void> {
    for (const { node } of this.#disks) await rm(path.join(this.#folder, `${node}.raw`), { force: true });
  }
}

const jobOf = (node: string): string => `reference-${node}`;
