// Writes the generated lists of qga/README.md anew: npm run compatibility-table
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { withFailures } from '../support/failures-list.js';
import { withFlows } from '../support/libvirt-table.js';
import { withTable } from './table.js';

const readme = fileURLToPath(new URL('../../qga/README.md', import.meta.url));
writeFileSync(readme, withFailures(withFlows(withTable(readFileSync(readme, 'utf8')))));
