// Preact, and the one function that its bundle lacks.

export { Component, html } from "../vendor/preact-htm.js";

export const createRef = () => ({ current: null });
