// Runs LVM, and reads what it reports. None of its commands here writes a backup of the metadata to /etc/lvm, asks
// dmeventd to watch, or tells the system bus: the first may be frozen, the others start programs.
import * as v from 'valibot';
import { CutError } from '../../errors.js';
import { thisMaker, type Maker } from '../maker.js';
import { mustRun, type Run } from '../program.js';

/** As a word of a command line, and, in quotes, of a line for the lvm shell: what that says is all that it tells. */
export const LVM_CONFIG = 'backup/backup=0 backup/archive=0 activation/monitoring=0 global/notify_dbus=0 log/silent=0';

const number = v.pipe(v.string(), v.transform(Number), v.number());
/** Empty where it does not apply. */
const percent = v.pipe(
  v.string(),
  v.transform((text) => (text === '' ? undefined : Number(text))),
);
const volumeSchema = v.object({
  lv_name: v.string(),
  vg_name: v.string(),
  lv_uuid: v.string(),
  lv_size: number,
  lv_attr: v.string(),
  segtype: v.string(),
  origin: v.string(),
  pool_lv: v.string(),
  data_percent: percent,
  metadata_percent: percent,
  lv_tags: v.string(),
  lv_time: v.string(),
  vg_free: number,
  vg_extent_size: number,
  lv_kernel_major: number,
  lv_kernel_minor: number,
});
export type LogicalVolume = v.InferOutput<typeof volumeSchema>;
const FIELDS = Object.keys(volumeSchema.entries).join(',');
const reportSchema = v.object({ report: v.array(v.object({ lv: v.array(volumeSchema) })) });

export class Lvm {
  readonly #run: Run;
  #all: Promise<readonly LogicalVolume[]> | undefined;

  readonly #lock: Lock;

  constructor(run: Run, lock: Lock) {
    this.#run = run;
    this.#lock = lock;
  }

  /** Every visible logical volume, as of the last change that was made here. Throws a CutError. */
  async all(): Promise<readonly LogicalVolume[]> {
    this.#all ??= this.#volumes();
    try {
      return await this.#all;
    } catch (error) {
      this.#all = undefined;
      throw error;
    }
  }

  /** The volume of that name, as it is now; undefined if there is none. Throws a CutError. */
  async volume(group: string, name: string): Promise<LogicalVolume | undefined> {
    return (await this.#volumes('-S', `vg_name="${group}" && lv_name="${name}"`))[0];
  }

  /** Every visible volume of that group, as they are now; none if there is no such. Throws a CutError. */
  async group(name: string): Promise<readonly LogicalVolume[]> {
    return await this.#volumes('-S', `vg_name="${name}"`);
  }

  async #volumes(...only: readonly string[]): Promise<readonly LogicalVolume[]> {
    const text = await this.do('lvs', '--reportformat', 'json', '--units', 'b', '--nosuffix', '-o', FIELDS, ...only);
    const result = v.safeParse(v.pipe(v.string(), v.parseJson(), reportSchema), text);
    if (result.success) return result.output.report.flatMap(({ lv }) => lv);
    const [issue] = result.issues;
    throw new CutError('E_PROVIDER', `lvs: expected a report in JSON with ${FIELDS}, found ${issue.message}`);
  }

  /** One command, to its end. Throws a CutError with what it said. */
  async do(command: string, ...words: readonly string[]): Promise<string> {
    const isChange = command !== 'lvs';
    if (isChange) this.changed();
    try {
      return await mustRun(this.#run, ['lvm', command, '--config', LVM_CONFIG, ...words]);
    } finally {
      // What was listed meanwhile may be older than its end.
      if (isChange) this.changed();
    }
  }

  /** Something else than do() changes volumes, or did. */
  changed(): void {
    this.#all = undefined;
  }

  /** As do(), for a command that suspends a device: not while the guest is held, and nobody holds it meanwhile. */
  async doAlone(limitMs: number, command: string, ...words: readonly string[]): Promise<void> {
    const unlock = await this.#lock(words.at(-1) ?? '', limitMs);
    try {
      await this.do(command, ...words);
    } finally {
      await unlock();
    }
  }
}

/**
 * Keeps freezes away from a change that suspends a device, until what it gives is called. Waits for one that is on at
 * most `limitMs`, then throws an error that says who holds the guest.
 */
export type Lock = (what: string, limitMs: number) => Promise<() => Promise<void>>;

/** Marks everything of ours, and each run's own: gc removes nothing that has not the first one. */
const OUR_TAG = 'fsfreeze-bridge';
const RUN_TAG = 'fsb.run.';
/** The volume that it is cut from, which LVM does not tell before the cut has come to its end. */
const ORIGIN_TAG = 'fsb.of.';
const MACHINE_TAG = 'fsb.machine.';
const BOOT_TAG = 'fsb.boot.';
const VALUE_TAGS = [RUN_TAG, ORIGIN_TAG, MACHINE_TAG, BOOT_TAG];

export function tagWords(run: string, origin: string): readonly string[] {
  const { machine, boot } = thisMaker();
  const tags = [OUR_TAG, `${RUN_TAG}${run}`, `${ORIGIN_TAG}${origin}`];
  if (machine !== undefined) tags.push(`${MACHINE_TAG}${machine}`);
  if (boot !== undefined) tags.push(`${BOOT_TAG}${boot}`);
  return tags.flatMap((tag) => ['--addtag', tag]);
}

/** As its tags have it. */
export function makerOf({ lv_tags }: LogicalVolume): Maker {
  const of = (head: string): string | undefined =>
    lv_tags
      .split(',')
      .find((tag) => tag.startsWith(head))
      ?.slice(head.length);
  const [machine, boot] = [of(MACHINE_TAG), of(BOOT_TAG)];
  return { ...(machine === undefined ? {} : { machine }), ...(boot === undefined ? {} : { boot }) };
}

/** The run that made it; undefined if it is not ours. */
export function runOf({ lv_tags }: LogicalVolume): string | undefined {
  const tags = lv_tags.split(',');
  return tags.includes(OUR_TAG)
    ? (tags.find((tag) => tag.startsWith(RUN_TAG))?.slice(RUN_TAG.length) ?? '')
    : undefined;
}

/** The volume that it is, or was to be, cut from; undefined if neither LVM nor a tag tells. */
export function originOf({ origin, lv_tags }: LogicalVolume): string | undefined {
  const tag = lv_tags.split(',').find((one) => one.startsWith(ORIGIN_TAG));
  return origin === '' ? tag?.slice(ORIGIN_TAG.length) : origin;
}

export function ourTags({ lv_tags }: LogicalVolume): readonly string[] {
  return lv_tags.split(',').filter((tag) => tag === OUR_TAG || VALUE_TAGS.some((head) => tag.startsWith(head)));
}
