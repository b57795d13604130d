// The version of this package, as its package.json has it.
import { readFileSync } from 'node:fs';
import * as v from 'valibot';

const packageSchema = v.object({ version: v.string() });

export const toolVersion = v.parse(
  packageSchema,
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')),
).version;
