// Makes the `<disk>` elements that are given back to libvirt: whole, as libvirt wrote them, or with another image in
// them. Reading a domain's disks is domain-xml.ts. Specification: libvirt's domain XML format, "Hard drives, floppy
// disks, CDROMs".
import XMLBuilder from 'fast-xml-builder';
import { XMLParser } from 'fast-xml-parser';
import { BridgeError } from '../../../errors.js';

/** A node of an XML tree that keeps the order: `{ NAME: [children], ':@': { ATTRIBUTE: value } }`. */
type XmlNode = Record<string, unknown>;
const ATTRIBUTES = ':@';
const ordered = { preserveOrder: true, ignoreAttributes: false, attributeNamePrefix: '' } as const;

/** The `<disk>` of the target as it stands there, for `virsh update-device`. Undefined if there is none. */
export function diskElement(xml: string, target: string): string | undefined {
  const disk = findDisk(xml, target);
  return disk === undefined ? undefined : new XMLBuilder(ordered).build([disk]);
}

export interface DiskImage {
  readonly file: string;
  readonly format: string;
  readonly isBlockDevice: boolean;
  readonly isEncrypted: boolean;
}

/**
 * `diskElement` with another image in it: as libvirt knows the layer, if it lies below the disk's, with its encryption; else
 * as a plain file or device. What libvirt knows of the layers below the old image is left out. Undefined if there is no
 * such disk on an image; throws a BridgeError if the image's encryption cannot be known.
 */
export function diskOnImage(xml: string, target: string, image: DiskImage): string | undefined {
  const disk = findDisk(xml, target);
  const source = disk === undefined ? undefined : child(disk, 'disk', 'source');
  if (disk === undefined || source === undefined || imageOf(source) === undefined) return undefined;
  const layer = layerBelow(disk, 'disk', image.file);
  const { name, type } = image.isBlockDevice ? { name: 'dev', type: 'block' } : { name: 'file', type: 'file' };
  const known = layer === undefined ? undefined : child(layer, 'backingStore', 'source');
  const newSource = known === undefined ? { source: [], [ATTRIBUTES]: { [name]: image.file } } : withoutIndex(known);
  if (image.isEncrypted && !(newSource['source'] as XmlNode[]).some((part) => 'encryption' in part)) {
    const message = `disk ${target}: libvirt no longer says how ${image.file} is encrypted: give it back its <encryption>`;
    throw new BridgeError('E_DEFINITION', message);
  }
  const parts = (disk['disk'] as XmlNode[])
    .filter((part) => !('backingStore' in part) && !('mirror' in part) && !('encryption' in part))
    .map((part) => {
      if ('source' in part) return newSource;
      return 'driver' in part ? withAttributes(part, { type: image.format }) : part;
    });
  return new XMLBuilder(ordered).build([
    withAttributes({ ...disk, disk: parts }, { type: attributes(layer)['type'] ?? type }),
  ]);
}

/** Every image that the disks name, with the layers below them. */
export function imagesOf(xml: string): string[] {
  const found: string[] = [];
  const walk = (node: XmlNode, own: string): void => {
    for (const part of node[own] as XmlNode[]) {
      const image = 'source' in part ? imageOf(part) : undefined;
      if (image !== undefined) found.push(image);
      for (const name of ['backingStore', 'mirror', 'source', 'dataStore']) if (name in part) walk(part, name);
    }
  };
  for (const disk of devicesIn(xml)) if ('disk' in disk) walk(disk, 'disk');
  return [...new Set(found)];
}

function devicesIn(xml: string): readonly XmlNode[] {
  const tree = new XMLParser({ ...ordered, parseAttributeValue: false, parseTagValue: false }).parse(xml) as XmlNode[];
  return childrenOf(childrenOf(tree, 'domain'), 'devices');
}

function findDisk(xml: string, target: string): XmlNode | undefined {
  return devicesIn(xml).find((node) => 'disk' in node && attributes(child(node, 'disk', 'target'))['dev'] === target);
}

/** The layer on this image, in the chain of `<backingStore>` below `node`. */
function layerBelow(node: XmlNode, own: string, file: string): XmlNode | undefined {
  const layer = child(node, own, 'backingStore');
  if (layer === undefined) return undefined;
  const source = child(layer, 'backingStore', 'source');
  return source !== undefined && imageOf(source) === file ? layer : layerBelow(layer, 'backingStore', file);
}

function childrenOf(nodes: readonly XmlNode[], name: string): readonly XmlNode[] {
  return (nodes.find((node) => name in node)?.[name] ?? []) as XmlNode[];
}

function child(node: XmlNode, own: string, name: string): XmlNode | undefined {
  return (node[own] as XmlNode[]).find((part) => name in part);
}

function attributes(node: XmlNode | undefined): Readonly<Record<string, string | undefined>> {
  return (node?.[ATTRIBUTES] ?? {}) as Record<string, string>;
}

function imageOf(source: XmlNode): string | undefined {
  const { file, dev } = attributes(source);
  return file ?? dev;
}

/** The source without its number, which libvirt gives in a running domain. */
function withoutIndex(source: XmlNode): XmlNode {
  const rest = Object.entries(attributes(source)).filter(([name]) => name !== 'index');
  return { ...source, [ATTRIBUTES]: Object.fromEntries(rest) };
}

function withAttributes(node: XmlNode, more: Record<string, string>): XmlNode {
  return { ...node, [ATTRIBUTES]: { ...attributes(node), ...more } };
}
