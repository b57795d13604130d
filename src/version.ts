// Holds the version of this package, as in package.json (a test compares them). It is a constant, so that no program
// reads a file to know itself.
export const PACKAGE_VERSION = '0.1.0';
