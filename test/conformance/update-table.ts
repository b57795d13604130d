// Writes the table of qga/README.md anew: npm run compatibility-table
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { withTable } from './table.js';

const readme = fileURLToPath(new URL('../../qga/README.md', import.meta.url));
writeFileSync(readme, withTable(readFileSync(readme, 'utf8')));
