/** Swagger UI over this service's own document. What is entered for "Authorize" is kept in this page alone. */
globalThis.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null, // it would send the document elsewhere
  requestInterceptor: (request) => Object.assign(request, { redirect: "error" }), // the token would go along
});
