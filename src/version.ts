// The version of this package, as in package.json (a test compares them). A constant, not a file: neither program reads
// one to know itself.
export const PACKAGE_VERSION = '0.1.0';
