// The rooms of src/ and what each may import besides itself and the leaves (the files directly in src/). ESLint holds
// these walls (eslint.config.js); CONTRIBUTING.md shows them (unit/house).

const guestAgent = ['qga', 'rpc', 'transport', 'wire'];
const monitor = ['qmp', 'rpc', 'transport', 'wire'];
const freezeSteps = [
  'linux',
  'freeze/freezer',
  'freeze/writers',
  'freeze/judgement',
  'freeze/options',
  'freeze/settings',
];
const hostGround = ['linux', ...monitor, 'host/images', 'host/vm', 'host/sets'];

/** From the ground up. Paths are those below src/; one without an ending is a folder or a file. */
export const rooms = {
  wire: [],
  transport: [],
  linux: [],
  rpc: ['transport', 'wire'],
  qga: ['rpc', 'transport', 'wire'],
  qmp: ['rpc', 'transport', 'wire'],
  'freeze/freezer': ['linux'],
  'freeze/writers': ['linux'],
  'freeze/judgement': ['linux', 'freeze/writers'],
  'freeze/session': freezeSteps,
  freeze: ['linux'],
  agent: ['linux', 'freeze', ...guestAgent],
  snapshot: ['linux', 'freeze/writers', ...guestAgent],
  'host/images': ['linux', ...monitor],
  'host/vm': ['linux', ...monitor, 'qga', 'host/images'],
  'host/sets': hostGround,
  'host/guest': [...hostGround, 'qga'],
  'host/repository': hostGround,
  'host/commit': hostGround,
  'host/copy': hostGround,
  'host/create': [...hostGround, 'host/guest'],
  'host/backup': [...hostGround, 'host/guest', 'host/create', 'host/repository'],
  'host/restore': [...hostGround, 'host/repository'],
  'host/boot': [...hostGround, 'qga', 'host/repository'],
  'host/start': [...hostGround, 'qga', 'host/repository', 'host/restore', 'host/boot'],
  'host/prune': [...hostGround, 'host/snapshot-delete'],
  'host/watch': hostGround,
  'host/recover': [...hostGround, 'host'],
  host: ['linux', 'qga', ...monitor],
  testing: ['linux', 'qga', ...monitor],
  writer: [],
  'cli/agent': ['agent', 'freeze', ...guestAgent],
  'cli/snapshot': ['snapshot', 'linux', 'cli/agent', 'agent', 'freeze', ...guestAgent],
  'cli/bridge': ['host', 'linux', 'qga', ...monitor],
};

/** Third-party libraries, and where each is used: rooms, or single files below src/. */
export const libraries = {
  yargs: ['cli/bridge'],
  chokidar: ['freeze/writers/watch.ts'],
  pino: ['log.ts'],
  'fast-xml-builder': ['host/vm/libvirt'],
  'fast-xml-parser': ['host/vm/libvirt'],
  execa: ['agent', 'freeze/freezer', 'freeze/writers', 'host/vm/libvirt', 'snapshot', 'testing', 'transport'],
  valibot: ['consistency.ts', 'agent', 'cli/bridge', 'freeze/writers', 'host', 'qga', 'qmp', 'snapshot', 'testing'],
};
