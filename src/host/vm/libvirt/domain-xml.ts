// Reads the disks and the TPM of a domain from libvirt's XML: of the running domain, or of its definition (`dumpxml
// --inactive`). Specification: libvirt's domain XML format, "Hard drives, floppy disks, CDROMs", "TPM device".
import { XMLParser } from 'fast-xml-parser';
import * as v from 'valibot';
import { defined } from '../../../defined.js';
import { BridgeError } from '../../../errors.js';

const diskSchema = v.object({
  target: v.object({ dev: v.string() }),
  alias: v.optional(v.object({ name: v.string() })),
  /** Absent for an empty drive; `file`, `dev`, or what a network disk has. */
  source: v.optional(
    v.union([
      v.object({
        file: v.optional(v.string()),
        dev: v.optional(v.string()),
        slices: v.optional(v.unknown()),
        encryption: v.optional(v.unknown()),
      }),
      v.literal(''),
    ]),
  ),
  /** `disk` unless it says so. */
  device: v.optional(v.string()),
  readonly: v.optional(v.unknown()),
  shareable: v.optional(v.unknown()),
  encryption: v.optional(v.unknown()),
  serial: v.optional(v.string()),
  driver: v.optional(v.union([v.object({ type: v.optional(v.string()) }), v.literal('')])),
  transient: v.optional(v.unknown()),
  mirror: v.optional(v.object({ job: v.optional(v.string()), ready: v.optional(v.string()) })),
});
const domainSchema = v.object({
  domain: v.object({ devices: v.object({ disk: v.optional(v.array(diskSchema), []) }) }),
});
const tpmSchema = v.object({
  domain: v.object({
    uuid: v.string(),
    devices: v.object({
      tpm: v.object({
        backend: v.object({
          type: v.literal('emulator'),
          /** Where its state is, if its user chose the place (libvirt 10.10 and later). */
          source: v.optional(v.object({ path: v.optional(v.string()) })),
        }),
      }),
    }),
  }),
});

export interface DomainDisk {
  /** `vda`: how libvirt's commands name it. */
  readonly target: string;
  /** The id of QEMU's device; absent in a definition. */
  readonly alias?: string;
  /** The active layer, a file or a device. */
  readonly file?: string;
  readonly format: string;
  readonly serial?: string;
  /** Why the guest does not write to it, for people. */
  readonly unwritten?: string;
  /** Why its file alone is not the disk, or not in clear text, for people. */
  readonly notInFile?: string;
  /** libvirt lays an overlay of its own on it, and throws that away with the domain's end. */
  readonly isTransient?: true;
  /** A job that copies, or merges the active layer. */
  readonly mirror?: { readonly job: string; readonly ready: boolean };
}

const parser = new XMLParser({
  ignoreAttributes: false,
  attributeNamePrefix: '',
  parseAttributeValue: false,
  isArray: (_name, path) => path === 'domain.devices.disk',
});

/** Throws a BridgeError for what is no domain. */
export function domainDisks(xml: string): readonly DomainDisk[] {
  const parsed = v.safeParse(domainSchema, parser.parse(xml));
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new BridgeError('E_DOMAIN_XML', `libvirt's XML: ${v.getDotPath(issue) ?? 'the whole'}: ${issue.message}`);
  }
  return parsed.output.domain.devices.disk.map((disk) => {
    const { target, alias, source, driver, mirror, transient, serial } = disk;
    const file = typeof source === 'object' ? (source.file ?? source.dev) : undefined;
    return {
      target: target.dev,
      format: (typeof driver === 'object' ? driver.type : undefined) ?? 'raw',
      ...(transient === undefined ? {} : { isTransient: true as const }),
      ...(alias === undefined ? {} : { alias: alias.name }),
      ...defined({ file, serial, unwritten: whyUnwritten(disk), notInFile: whyNotInFile(disk, file) }),
      ...(mirror === undefined ? {} : { mirror: { job: mirror.job ?? 'copy', ready: mirror.ready === 'yes' } }),
    };
  });
}

type Disk = v.InferOutput<typeof diskSchema>;

function whyUnwritten({ device = 'disk', readonly: isReadOnly }: Disk): string | undefined {
  if (device === 'cdrom' || device === 'floppy') return 'removable medium';
  return isReadOnly === undefined ? undefined : 'read-only';
}

function whyNotInFile({ device, source, shareable, encryption }: Disk, file: string | undefined): string | undefined {
  if (file === undefined) return 'its image is no file or device of this host';
  if (device === 'lun') return 'it is passed through to the guest (lun)';
  if (shareable !== undefined) return 'others may write to it at the same time (shareable)';
  const { slices, encryption: inSource } = typeof source === 'object' ? source : {};
  if (encryption !== undefined || inSource !== undefined) return 'it is encrypted: its backup would hold clear text';
  return slices === undefined ? undefined : `it is a slice of ${file}`;
}

export interface DomainTpm {
  readonly uuid: string;
  readonly path?: string;
}

/** The TPM whose state is kept in files; undefined if the domain has none. */
export function domainTpm(xml: string): DomainTpm | undefined {
  const parsed = v.safeParse(tpmSchema, parser.parse(xml));
  if (!parsed.success) return undefined;
  const { uuid, devices } = parsed.output.domain;
  const path = devices.tpm.backend.source?.path;
  return { uuid, ...defined({ path }) };
}

const nvramSchema = v.object({
  domain: v.object({
    os: v.object({
      nvram: v.union([
        v.string(),
        v.object({ '#text': v.string() }),
        v.object({ source: v.object({ file: v.string() }) }),
      ]),
    }),
  }),
});

/** The file with the variables of the firmware; undefined if the domain has none, or none of its own. */
export function domainNvram(xml: string): string | undefined {
  const parsed = v.safeParse(nvramSchema, parser.parse(xml));
  if (!parsed.success) return undefined;
  const { nvram } = parsed.output.domain.os;
  if (typeof nvram === 'string') return nvram === '' ? undefined : nvram;
  return '#text' in nvram ? nvram['#text'] : nvram.source.file;
}
