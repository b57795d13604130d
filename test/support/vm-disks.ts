// A disk of a VM as its monitor tells of it, for tests of code that takes one.
import type { VmDisk } from '../../src/qmp/block-graph.js';

export function vmDisk(id: string, over: Partial<VmDisk> = {}): VmDisk {
  return {
    device: '',
    qdev: `/machine/peripheral/${id}`,
    id,
    serial: id,
    rootNode: `node-${id}`,
    node: `node-${id}`,
    format: 'qcow2',
    file: `/img/${id}.qcow2`,
    name: `/img/${id}.qcow2`,
    virtualSize: 1,
    readOnly: false,
    removable: false,
    cache: { direct: false, noFlush: false },
    detectZeroes: 'off',
    below: [],
    backingFiles: [],
    dataFiles: [],
    shared: false,
    ...over,
  };
}
