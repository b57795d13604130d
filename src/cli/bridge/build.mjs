// Builds the host tool that users get, and its manual page. The tool is one file: read one by one, its modules take five
// times as long as Node itself. Run after tsc. The libraries in it stay dependencies of the package, so that their licences
// come with them.
//
//   node src/cli/bridge/build.mjs      dist/cli/bridge/main.js -> dist/fsfreeze-bridge.cjs, dist/fsfreeze-bridge.8
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const inProject = (path) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));

/**
 * string-width asks ICU for a segmenter and every emoji there is when it is loaded, a quarter of the tool's whole start.
 * yargs measures our help texts with it, which are ASCII.
 */
const asciiWidth = {
  name: 'ascii-width',
  setup: ({ onLoad }) => {
    onLoad({ filter: /\/string-width\/index\.js$/ }, () => ({ contents: 'export default (text) => text.length;' }));
  },
};

const { metafile } = await build({
  absWorkingDir: inProject('.'),
  entryPoints: ['dist/cli/bridge/main.js'],
  outfile: 'dist/fsfreeze-bridge.cjs',
  bundle: true,
  platform: 'node',
  format: 'cjs',
  target: 'node20',
  metafile: true,
  logLevel: 'warning',
  plugins: [asciiWidth],
  // Only yargs asks for its URL. With the one that it would have, it looks for texts and versions within this package.
  define: { 'import.meta.url': '__yargsUrl' },
  banner: {
    js: "'use strict'; const __yargsUrl = require('node:url').pathToFileURL(`${__dirname}/../node_modules/yargs/lib/platform-shims/esm.mjs`).href;",
  },
});

// The modules whose licences belong to the tool where it is handed out without its dependencies.
mkdirSync(inProject('build'), { recursive: true });
writeFileSync(inProject('build/bridge.modules.json'), JSON.stringify(Object.keys(metafile.inputs), null, 2));

const { manPage } = await import(inProject('dist/cli/bridge/man-page.js'));
const example = readFileSync(inProject('src/cli/bridge/package/vms.json'), 'utf8');
writeFileSync(inProject('dist/fsfreeze-bridge.8'), manPage(example));
