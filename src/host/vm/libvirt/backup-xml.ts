// Makes the XML of a backup and of a checkpoint, and reads that of a backup that runs. Specification: libvirt's "Backup XML
// format" and "Checkpoint XML format".
import XMLBuilder from 'fast-xml-builder';
import { XMLParser } from 'fast-xml-parser';
import * as v from 'valibot';
import { defined } from '../../../defined.js';
import { BridgeError } from '../../../errors.js';

const attributes = { ignoreAttributes: false, attributeNamePrefix: '@' } as const;
const build = (tree: object): string => new XMLBuilder(attributes).build(tree);

export interface DiskBackup {
  /** `vda` */
  readonly target: string;
  /** A qcow2 image that is there. */
  readonly file: string;
  /** The checkpoint since which it is copied; without it, the whole. */
  readonly since: string | undefined;
}

/** Disks that are `others` are named, so that libvirt has nothing to choose. */
export function backupXml(disks: readonly DiskBackup[], others: readonly string[]): string {
  const disk = [
    ...disks.map(({ target, file, since }) => ({
      ...{ '@name': target, '@backup': 'yes', '@type': 'file' },
      ...(since === undefined ? { '@backupmode': 'full' } : { '@backupmode': 'incremental', '@incremental': since }),
      driver: { '@type': 'qcow2' },
      target: { '@file': file },
    })),
    ...others.map((target) => ({ '@name': target, '@backup': 'no' })),
  ];
  return build({ domainbackup: { '@mode': 'push', disks: { disk } } });
}

export interface DomainCheckpoint {
  readonly name: string;
  /** The disks on which it records. */
  readonly targets: readonly string[];
  readonly others: readonly string[];
  /** Only of one that was there before. */
  readonly since?: Date | undefined;
}

/** Its bitmaps have its name: libvirt takes no other. */
export function checkpointXml({ name, targets, others, since }: DomainCheckpoint): string {
  const disk = [
    ...targets.map((target) => ({ '@name': target, '@checkpoint': 'bitmap', '@bitmap': name })),
    ...others.map((target) => ({ '@name': target, '@checkpoint': 'no' })),
  ];
  const creationTime = since === undefined ? undefined : Math.floor(since.getTime() / 1000);
  return build({ domaincheckpoint: { name, ...defined({ creationTime }), disks: { disk } } });
}

const backupSchema = v.object({
  domainbackup: v.object({
    disks: v.object({ disk: v.array(v.object({ target: v.optional(v.object({ '@file': v.optional(v.string()) })) })) }),
  }),
});
const parser = new XMLParser({ ...attributes, isArray: (_name, path) => path === 'domainbackup.disks.disk' });

/** The files that a backup goes to. Throws a BridgeError for what is no backup. */
export function backupFiles(xml: string): readonly string[] {
  const parsed = v.safeParse(backupSchema, parser.parse(xml));
  if (!parsed.success) throw new BridgeError('E_DOMAIN_XML', `libvirt's XML of a backup: ${parsed.issues[0].message}`);
  return parsed.output.domainbackup.disks.disk.flatMap(({ target }) => target?.['@file'] ?? []);
}
