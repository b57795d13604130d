// Types of house.js, which ESLint's configuration reads as it is.
export const rooms: Readonly<Record<string, readonly string[]>>;
export const libraries: Readonly<Record<string, readonly string[]>>;
