// The disks of a domain, as libvirt's XML has them: of the running domain, or of its definition (`dumpxml --inactive`).
// Specification: libvirt's domain XML format, "Hard drives, floppy disks, CDROMs".
import XMLBuilder from 'fast-xml-builder';
import { XMLParser } from 'fast-xml-parser';
import * as v from 'valibot';
import { BridgeError } from '../../../errors.js';

const diskSchema = v.object({
  target: v.object({ dev: v.string() }),
  alias: v.optional(v.object({ name: v.string() })),
  /** Absent for an empty drive; `file`, `dev`, or what a network disk has. */
  source: v.optional(v.union([v.object({ file: v.optional(v.string()), dev: v.optional(v.string()) }), v.literal('')])),
  mirror: v.optional(v.object({ job: v.optional(v.string()), ready: v.optional(v.string()) })),
});
const domainSchema = v.object({
  domain: v.object({ devices: v.object({ disk: v.optional(v.array(diskSchema), []) }) }),
});

export interface DomainDisk {
  /** `vda`: how libvirt's commands name it. */
  readonly target: string;
  /** The id of QEMU's device; absent in a definition. */
  readonly alias?: string;
  /** The active layer, a file or a device. */
  readonly file?: string;
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
  return parsed.output.domain.devices.disk.map(({ target, alias, source, mirror }) => {
    const file = typeof source === 'object' ? (source.file ?? source.dev) : undefined;
    return {
      target: target.dev,
      ...(alias === undefined ? {} : { alias: alias.name }),
      ...(file === undefined ? {} : { file }),
      ...(mirror === undefined ? {} : { mirror: { job: mirror.job ?? 'copy', ready: mirror.ready === 'yes' } }),
    };
  });
}

/** A node of an XML tree that keeps the order: `{ NAME: [children], ':@': { ATTRIBUTE: value } }`. */
type XmlNode = Record<string, unknown>;
const ATTRIBUTES = ':@';
const ordered = { preserveOrder: true, ignoreAttributes: false, attributeNamePrefix: '' } as const;

/**
 * The `<disk>` of the target with another image in it, for `virsh update-device`; what libvirt knows of the layers below
 * the old one is left out. Undefined if there is no such disk on a file.
 */
export function diskWithFile(xml: string, target: string, file: string, format: string): string | undefined {
  const tree = new XMLParser({ ...ordered, parseAttributeValue: false, parseTagValue: false }).parse(xml) as XmlNode[];
  const devices = childrenOf(childrenOf(tree, 'domain'), 'devices');
  const disk = devices.find((node) => 'disk' in node && attributeOf(node, 'disk', 'target', 'dev') === target);
  if (disk === undefined || attributeOf(disk, 'disk', 'source', 'file') === undefined) return undefined;
  const parts = (disk['disk'] as XmlNode[])
    .filter((part) => !('backingStore' in part) && !('mirror' in part))
    .map((part) => {
      if ('source' in part) return withAttributes(part, { file });
      return 'driver' in part ? withAttributes(part, { type: format }) : part;
    });
  return new XMLBuilder(ordered).build([{ ...disk, disk: parts }]);
}

function childrenOf(nodes: readonly XmlNode[], name: string): readonly XmlNode[] {
  return (nodes.find((node) => name in node)?.[name] ?? []) as XmlNode[];
}

function attributeOf(node: XmlNode, own: string, child: string, attribute: string): string | undefined {
  const found = (node[own] as XmlNode[]).find((part) => child in part);
  return (found?.[ATTRIBUTES] as Record<string, string> | undefined)?.[attribute];
}

function withAttributes(node: XmlNode, attributes: Record<string, string>): XmlNode {
  return { ...node, [ATTRIBUTES]: { ...(node[ATTRIBUTES] as object), ...attributes } };
}
