// Runs LVM, and reads what it reports. None of its commands here writes a backup of the metadata to /etc/lvm, asks
// dmeventd to watch, or tells the system bus: the first may be frozen, the others start programs.
import * as v from 'valibot';
import { CutError } from '../../errors.js';
import { thisMaker, type Maker } from '../maker.js';
import { mustRun, type Run } from '../program.js';

/** As a word of a command line, and, in quotes, of a line for the lvm shell. */
export const LVM_CONFIG = 'backup/backup=0 backup/archive=0 activation/monitoring=0 global/notify_dbus=0';

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

  constructor(run: Run) {
    this.#run = run;
  }

  /** Every visible logical volume, as of the last change that was made here. Throws a CutError. */
  async all(): Promise<readonly LogicalVolume[]> {
    return await (this.#all ??= this.#volumes());
  }

  /** The volume of that name, as it is now; undefined if there is none. Throws a CutError. */
  async volume(group: string, name: string): Promise<LogicalVolume | undefined> {
    return (await this.#volumes('-S', `vg_name="${group}" && lv_name="${name}"`))[0];
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
    if (command !== 'lvs') this.#all = undefined;
    return await mustRun(this.#run, ['lvm', command, '--config', LVM_CONFIG, ...words]);
  }
}

/** Marks everything of ours, and each run's own: gc removes nothing that has not the first one. */
const OUR_TAG = 'fsfreeze-bridge';
const RUN_TAG = 'fsb.run.';
const MACHINE_TAG = 'fsb.machine.';
const BOOT_TAG = 'fsb.boot.';

export function tagWords(run: string): readonly string[] {
  const { machine, boot } = thisMaker();
  const tags = [OUR_TAG, `${RUN_TAG}${run}`];
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
