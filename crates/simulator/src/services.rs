//! The shop on paper: its services, what they offer, and how big they are.
//!
//! Guards that every name in the telemetry comes from one table. No behaviour lives here.

/// A service of the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Service {
    Frontend,
    Checkout,
    Cart,
    Catalog,
    Payment,
    Shipping,
    Inventory,
    Recommendation,
    Email,
    /// Rolls out new versions; only logs.
    DeployController,
}

/// The fixed facts about a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Profile {
    /// `service.name`.
    pub(crate) name: &'static str,
    /// `service.version` when the simulation starts.
    pub(crate) version: &'static str,
    /// `telemetry.sdk.language`.
    pub(crate) language: &'static str,
    /// Pods.
    pub(crate) replicas: usize,
    /// Share of one core used when idle.
    pub(crate) idle_cpu: f64,
    /// Milliseconds of one core per request served.
    pub(crate) cpu_per_request: f64,
    /// Resident memory, MiB.
    pub(crate) memory: f64,
    /// Database connection pool: name and size.
    pub(crate) pool: Option<(&'static str, usize)>,
}

impl Service {
    /// Every service.
    pub(crate) const ALL: [Self; 10] = [
        Self::Frontend,
        Self::Checkout,
        Self::Cart,
        Self::Catalog,
        Self::Payment,
        Self::Shipping,
        Self::Inventory,
        Self::Recommendation,
        Self::Email,
        Self::DeployController,
    ];

    /// The fixed facts.
    pub(crate) const fn profile(self) -> Profile {
        let (name, version, language, replicas, idle_cpu, cpu_per_request, memory, pool) = match self {
            Self::Frontend => ("frontend", "5.12.3", "nodejs", 3, 0.04, 6.0, 210.0, None),
            Self::Checkout => ("checkout", "2.7.1", "java", 2, 0.05, 5.0, 460.0, None),
            Self::Cart => ("cart", "1.14.0", "dotnet", 2, 0.02, 1.5, 160.0, None),
            Self::Catalog => ("catalog", "3.4.2", "java", 3, 0.06, 3.0, 520.0, Some(("products", 20))),
            Self::Payment => ("payment", "4.0.5", "go", 2, 0.02, 2.0, 70.0, Some(("ledger", 10))),
            Self::Shipping => ("shipping", "1.3.9", "go", 2, 0.01, 0.8, 45.0, None),
            Self::Inventory => ("inventory", "1.7.4", "java", 4, 0.05, 2.5, 430.0, Some(("stock", 20))),
            Self::Recommendation => ("recommendation", "2.3.8", "python", 2, 0.08, 9.0, 240.0, None),
            Self::Email => ("email", "1.9.2", "python", 1, 0.02, 3.0, 120.0, None),
            Self::DeployController => ("deploy-controller", "0.33.0", "go", 1, 0.01, 0.0, 60.0, None),
        };
        Profile { name, version, language, replicas, idle_cpu, cpu_per_request, memory, pool }
    }

    /// `service.name`.
    pub(crate) const fn name(self) -> &'static str {
        self.profile().name
    }
}

/// How an endpoint is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Method and route.
    Http(&'static str, &'static str),
    /// Full method, `package.Service/Method`.
    Grpc(&'static str),
}

/// What an endpoint does; the journeys say how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Home,
    ProductPage,
    CartPage,
    AddToCartPage,
    CheckoutPage,
    PlaceOrder,
    ReadCart,
    AddToCart,
    EmptyCart,
    ListProducts,
    ReadProduct,
    Recommend,
    QuoteShipping,
    CreateShipment,
    Charge,
    Reserve,
}

/// One endpoint of one service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Who serves it.
    pub(crate) service: Service,
    /// How it is called.
    pub(crate) protocol: Protocol,
    /// Span name by the semantic conventions.
    pub(crate) span_name: &'static str,
    /// What it does.
    pub(crate) action: Action,
}

const fn http(service: Service, span_name: &'static str, method: &'static str, route: &'static str, action: Action) -> Endpoint {
    Endpoint { service, protocol: Protocol::Http(method, route), span_name, action }
}

const fn grpc(service: Service, span_name: &'static str, action: Action) -> Endpoint {
    Endpoint { service, protocol: Protocol::Grpc(span_name), span_name, action }
}

pub(crate) static HOME: Endpoint = http(Service::Frontend, "GET /", "GET", "/", Action::Home);
pub(crate) static PRODUCT_PAGE: Endpoint =
    http(Service::Frontend, "GET /product/{id}", "GET", "/product/{id}", Action::ProductPage);
pub(crate) static CART_PAGE: Endpoint = http(Service::Frontend, "GET /cart", "GET", "/cart", Action::CartPage);
pub(crate) static ADD_TO_CART_PAGE: Endpoint = http(Service::Frontend, "POST /cart", "POST", "/cart", Action::AddToCartPage);
pub(crate) static CHECKOUT_PAGE: Endpoint = http(Service::Frontend, "POST /checkout", "POST", "/checkout", Action::CheckoutPage);
pub(crate) static PLACE_ORDER: Endpoint = http(Service::Checkout, "POST /orders", "POST", "/orders", Action::PlaceOrder);
pub(crate) static READ_CART: Endpoint = http(Service::Cart, "GET /carts/{user}", "GET", "/carts/{user}", Action::ReadCart);
pub(crate) static ADD_TO_CART: Endpoint =
    http(Service::Cart, "POST /carts/{user}/items", "POST", "/carts/{user}/items", Action::AddToCart);
pub(crate) static EMPTY_CART: Endpoint =
    http(Service::Cart, "DELETE /carts/{user}", "DELETE", "/carts/{user}", Action::EmptyCart);
pub(crate) static LIST_PRODUCTS: Endpoint = http(Service::Catalog, "GET /products", "GET", "/products", Action::ListProducts);
pub(crate) static READ_PRODUCT: Endpoint =
    http(Service::Catalog, "GET /products/{id}", "GET", "/products/{id}", Action::ReadProduct);
pub(crate) static RECOMMEND: Endpoint =
    http(Service::Recommendation, "GET /recommendations", "GET", "/recommendations", Action::Recommend);
pub(crate) static QUOTE_SHIPPING: Endpoint = grpc(Service::Shipping, "shop.Shipping/Quote", Action::QuoteShipping);
pub(crate) static CREATE_SHIPMENT: Endpoint = grpc(Service::Shipping, "shop.Shipping/CreateShipment", Action::CreateShipment);
pub(crate) static CHARGE: Endpoint = grpc(Service::Payment, "shop.Payment/Charge", Action::Charge);
pub(crate) static RESERVE: Endpoint = http(Service::Inventory, "POST /reservations", "POST", "/reservations", Action::Reserve);

/// What visitors ask the frontend for, with weights that sum to 1.
pub(crate) static VISITS: [(&Endpoint, f64); 5] =
    [(&HOME, 0.28), (&PRODUCT_PAGE, 0.34), (&CART_PAGE, 0.14), (&ADD_TO_CART_PAGE, 0.14), (&CHECKOUT_PAGE, 0.10)];

/// Share of visits that place an order.
pub(crate) const ORDER_SHARE: f64 = 0.10;

/// Queue between checkout and email.
pub(crate) const ORDER_QUEUE: &str = "order-confirmations";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_and_the_order_share_is_theirs() {
        assert!((VISITS.iter().map(|(_, weight)| weight).sum::<f64>() - 1.0).abs() < 1e-9);
        let orders = VISITS.iter().find(|(endpoint, _)| endpoint.action == Action::CheckoutPage).unwrap().1;
        assert!((orders - ORDER_SHARE).abs() < 1e-9);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Service::ALL.iter().map(|service| service.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Service::ALL.len());
    }
}
