// How the images of a backup may be compressed.
export const compressions = ['zlib', 'zstd'] as const;
export type Compression = (typeof compressions)[number];
